"""The figures of a comparison as lines of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.verify import Outcome


def rows(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """What was measured, its value and its limit; only what was measured."""
    figures: dict[str, Any] = dict(outcome.verdict.figures)
    limits: dict[str, Any] = figures.get("limits", {})
    yield "pictures", str(figures.get("pictures", 0)), ""
    for name, tensor in figures.get("tensors", {}).items():
        snr = "equal" if tensor["snr_db"] is None else f"SNR {tensor['snr_db']:.1f} dB"
        value = f"{_number(tensor['cosine'], 5)} ({snr})"
        yield f"cosine of {name}", value, f">= {limits['min_cosine']:g}"
    boxes = figures.get("boxes")
    if boxes is not None:
        yield "objects of A, of B", f"{boxes['reference']}, {boxes['candidate']}", ""
        for key, whose, words in (
            ("matched", "reference", "of A's that B has"),
            ("supported", "candidate", "of B's that A has"),
        ):
            for at, share in boxes[key].items():
                judged = float(at) == limits["match_iou"]
                limit = f">= {limits['min_matched']:.1%}" if judged else ""
                value = f"{share:.1%}" if boxes[whose] else "-"
                yield f"{words}, IoU {at}", value, limit
        drift = _number(boxes["score_drift"], 4)
        yield "mean change of scores", drift, f"<= {limits['max_score_drift']:g}"
        if boxes["mask_iou"] is not None:
            yield "mean IoU of masks", f"{boxes['mask_iou']:.4f}", ""
        if boxes["keypoint_error"] is not None:
            yield "mean error of keypoints", f"{boxes['keypoint_error']:.4f} of the box", ""
    if "top1" in figures:
        yield "same best class", f"{figures['top1']:.1%}", f">= {limits['min_top1']:.1%}"
    precision = figures.get("map50_95")
    if precision is not None:
        values = f"{precision['reference']:.4f}, {precision['candidate']:.4f}"
        yield "mAP50-95 of A, of B", values, f"loss <= {limits['max_map_loss']:g}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
