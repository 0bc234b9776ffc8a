"""A small anchor-free detector in PyTorch, its loss, and its export.

The network predicts, at every cell of three grids (strides 8, 16, 32), four distances to a box's
sides and a score for each class. Cells are assigned to boxes by how well they already agree with
them in class and overlap ("task alignment", Feng et al., TOOD, arXiv 2108.07755). Exported, it has
the output layout of YOLOv8: [B, 4 + classes, cells], cxcywh in input pixels and class scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)

TOP_CELLS = 8
"""Cells that learn one box."""

ALIGN_POWER = 4.0
"""Weight of overlap against class score in the choice of those cells."""

START_SCORE = 0.01
"""What the untrained network gives every class: nearly every cell is background."""


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution, batch normalisation, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, momentum=0.05),
        nn.SiLU(inplace=True),
    )


class Stage(nn.Module):
    """Half of the channels pass by; the other half goes through residual blocks."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = conv(channels, channels, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half, 3), conv(half, half, 3)) for _ in range(blocks)
        )
        self.leave = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape."""
        aside, y = self.enter(x).chunk(2, 1)
        for block in self.blocks:
            y = y + block(y)
        return self.leave(torch.cat((aside, y), 1))


class Head(nn.Module):
    """Distances and scores of one grid, each by a depthwise branch of its own."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()

        def branch(outputs: int) -> nn.Sequential:
            return nn.Sequential(
                conv(channels, channels, 5, groups=channels),
                conv(channels, 48, 1),
                nn.Conv2d(48, outputs, 1),
            )

        self.distances, self.scores = branch(4), branch(classes)
        nn.init.constant_(self.distances[-1].bias, 1.0)
        prior = torch.tensor(START_SCORE)
        nn.init.constant_(self.scores[-1].bias, float(torch.log(prior / (1 - prior))))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 4 + classes, cells]: distances in strides, and logits."""
        return torch.cat((F.softplus(self.distances(x)), self.scores(x)), 1).flatten(2)


class Detector(nn.Module):
    """Backbone, two-way neck and heads; about 0.7 million parameters.

    Args:
        classes: number of classes.
        size: input height and width in pixels, a multiple of 32.
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), Stage(32, 1))
        self.down8 = nn.Sequential(conv(32, 64, 3, 2), Stage(64, 2))
        self.down16 = nn.Sequential(conv(64, 96, 3, 2), Stage(96, 2))
        self.down32 = nn.Sequential(conv(96, 128, 3, 2), Stage(128, 1))
        self.to64, self.to96 = conv(128, 64, 1), conv(96, 64, 1)
        self.up16 = nn.Sequential(conv(128, 64, 1), Stage(64, 1))
        self.to8 = conv(64, 64, 1)
        self.up8 = nn.Sequential(conv(128, 64, 1), Stage(64, 1))
        self.again16 = conv(64, 64, 3, 2)
        self.out16 = nn.Sequential(conv(128, 64, 1), Stage(64, 1))
        self.again32 = conv(64, 64, 3, 2)
        self.out32 = nn.Sequential(conv(128, 64, 1), Stage(64, 1))
        self.heads = nn.ModuleList(Head(64, classes) for _ in STRIDES)
        centres, strides = cells(size)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("strides", strides, persistent=False)

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes [B, cells, 4] as xyxy in pixels, and class logits [B, cells, classes]."""
        x8 = self.down8(self.stem(images))
        x16 = self.down16(x8)
        x32 = self.to64(self.down32(x16))
        y16 = self.up16(torch.cat((F.interpolate(x32, scale_factor=2), self.to96(x16)), 1))
        y8 = self.up8(torch.cat((F.interpolate(y16, scale_factor=2), self.to8(x8)), 1))
        z16 = self.out16(torch.cat((self.again16(y8), y16), 1))
        z32 = self.out32(torch.cat((self.again32(z16), x32), 1))
        out = torch.cat([h(f) for h, f in zip(self.heads, (y8, z16, z32), strict=True)], 2)
        out = out.transpose(1, 2)
        sides = out[..., :4] * self.strides
        boxes = torch.cat((self.centres - sides[..., :2], self.centres + sides[..., 2:]), -1)
        return boxes, out[..., 4:]

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S], RGB in 0..1, to the exported layout [B, 4 + classes, cells]."""
        boxes, logits = self.raw(images)
        low, high = boxes[..., :2], boxes[..., 2:]
        out = torch.cat(((low + high) / 2, high - low, logits.sigmoid()), -1)
        return out.transpose(1, 2)


def cells(size: int) -> tuple[Tensor, Tensor]:
    """Centres [cells, 2] and strides [cells, 1] of all grids, in pixels."""
    centres, strides = [], []
    for stride in STRIDES:
        steps = (torch.arange(size // stride) + 0.5) * stride
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        centres.append(torch.stack((x.flatten(), y.flatten()), 1))
        strides.append(torch.full((x.numel(), 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) of boxes xyxy [..., 4], broadcast."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(
        0
    )
    inside = overlap.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inside
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = inside / union.clamp(1e-6)
    return iou, iou - (hull - union) / hull.clamp(1e-6)


@torch.no_grad()
def assign(
    boxes: Tensor, scores: Tensor, centres: Tensor, truth: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose which cells of one image learn which box.

    Args:
        boxes: predicted, [cells, 4].
        scores: predicted, [cells, classes], 0..1.
        centres: [cells, 2].
        truth: true boxes [n, 4].
        classes: true class ids [n].

    Returns:
        For each cell the number of its box or -1, and the score that it should learn.
    """
    iou, _ = giou(truth[:, None], boxes[None])
    inside = torch.cat((centres[None] - truth[:, None, :2], truth[:, None, 2:] - centres[None]), -1)
    inside = inside.amin(-1) > 0
    metric = scores[:, classes].T.sqrt() * iou**ALIGN_POWER * inside
    best = metric.topk(TOP_CELLS, 1)
    chosen = torch.zeros_like(metric, dtype=torch.bool).scatter_(1, best.indices, value=True)
    chosen &= inside
    # A cell that two boxes want goes to the one it overlaps more.
    owner = torch.where(chosen, iou, torch.full_like(iou, -1.0)).argmax(0)
    taken = chosen.any(0)
    owner = torch.where(taken, owner, torch.full_like(owner, -1))
    scale = (iou * chosen).amax(1) / (metric * chosen).amax(1).clamp(1e-9)
    target = (metric * scale[:, None]).gather(0, owner.clamp(0)[None])[0] * taken
    return owner, target.clamp(0, 1)


def loss(
    model: Detector, images: Tensor, truths: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, box and class loss of a batch.

    Args:
        model: the network.
        images: [B, 3, S, S].
        truths: per image, boxes [n, 4] in pixels and class ids [n].
    """
    boxes, logits = model.raw(images)
    target = torch.zeros_like(logits)
    box_loss = boxes.new_zeros(())
    for i, (truth, classes) in enumerate(truths):
        if not len(truth):
            continue
        owner, score = assign(
            boxes[i].detach(), logits[i].detach().sigmoid(), model.centres, truth, classes
        )
        taken = owner >= 0
        mine = owner[taken]
        target[i, taken, classes[mine]] = score[taken]
        _, agreement = giou(boxes[i, taken], truth[mine])
        box_loss = box_loss + ((1 - agreement) * score[taken]).sum()
    total = target.sum().clamp(1.0)
    class_loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / total
    box_loss = box_loss / total
    return 2.5 * box_loss + class_loss, box_loss, class_loss
