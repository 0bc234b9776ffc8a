"""Settings of a model slot: the file, and how its engines are made, judged and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from agent.configbase import Fraction, Section, Whole

DEFAULT_MODEL_PATH = Path("/var/lib/vigia/models/main.onnx")


class QuantizeConfig(Section):
    """How an int8 engine is made."""

    calibration: Path | None = Field(
        default=None,
        description="Folder of pictures, or a video, of what the cameras see; without it there is "
        "no int8. `vigia model collect` makes one.",
    )
    images: int = Field(
        default=256, ge=8, le=4096, description="Calibration pictures used at the most."
    )
    method: Literal["percentile", "max", "entropy"] = Field(
        default="percentile", description="How a tensor's range is found."
    )
    keep_float: Literal["head", "none"] = Field(
        default="head", description="What stays in float at first; the gate can add to it."
    )
    truth: Path | None = Field(
        default=None, description="Ground truth of the pictures (JSON), for mAP in the gate."
    )


class GateConfig(Section):
    """What an engine must keep of the FP32 model's answers before it may serve."""

    min_cosine: Fraction | None = Field(
        default=None, description="Of every output; default: 0.999, for int8 0.99."
    )
    match_iou: Fraction = Field(default=0.9, description="Overlap at which a box counts as kept.")
    min_matched: Fraction | None = Field(
        default=None, description="Share of boxes kept; default: 0.99, for int8 0.9."
    )
    max_score_drift: Fraction = Field(
        default=0.05, description="Mean change of the scores of kept boxes."
    )
    min_top1: Fraction | None = Field(
        default=None, description="Classifiers: same best class; default: 0.99, for int8 0.98."
    )
    max_map_loss: Fraction = Field(
        default=0.01, description="Loss of mAP50-95 where ground truth is given."
    )
    min_speedup: float = Field(
        default=1.05, ge=1, le=10, description="int8 serves only if this many times as fast."
    )


class TensorRtConfig(Section):
    """How TensorRT builds and runs engines."""

    workspace_mb: int | None = Field(
        default=None, ge=16, le=65_536, description="Scratch memory; default: by free memory."
    )
    level: Annotated[Literal[0, 1, 2, 3, 4, 5], Whole] | None = Field(
        default=None, description="Effort of the builder; default: by the board's memory."
    )
    dla_core: int | None = Field(
        default=None, ge=0, le=3, description="Run on this DLA, what it cannot do on the GPU."
    )
    preprocess: Literal["cpu", "cuda"] = Field(
        default="cpu", description="Where frames are resized and converted."
    )
    cuda_graphs: bool = Field(default=True, description="Replay captured work where it can be.")
    build_timeout_s: float = Field(
        default=3600.0, ge=10, le=86_400, description="A build is given up after this."
    )
    build_memory_mb: int | None = Field(
        default=None, ge=256, le=1_048_576, description="Memory cap of a build; default: none."
    )


class ModelConfig(Section):
    """One model slot: the file, what overrides its metadata, and how it is run."""

    path: Path = Field(default=DEFAULT_MODEL_PATH, description="ONNX file.")
    name: str | None = Field(default=None, description="Name in messages; default: file's stem.")
    task: Literal["detect", "segment", "pose", "obb", "classify"] | None = Field(
        default=None, description="What the model answers; default: told from the file."
    )
    layout: Literal["yolo", "yolo-anchor", "end2end", "detr", "classes"] | None = Field(
        default=None, description="How its outputs lie; default: told from the file."
    )
    names: list[str] | Path | None = Field(
        default=None, description="Class names in order, or a text file with one a line."
    )
    resize: Literal["letterbox", "stretch", "center-crop"] | None = Field(
        default=None, description="How a frame is fitted to the input; default: as trained."
    )
    input_width: int | None = Field(default=None, ge=32, le=8192, description="Dynamic models.")
    input_height: int | None = Field(default=None, ge=32, le=8192, description="Dynamic models.")
    mean: tuple[float, float, float] | None = Field(default=None, description="RGB, of 0..1.")
    std: tuple[float, float, float] | None = Field(default=None, description="RGB, of 0..1.")
    confidence: Fraction = Field(default=0.25, description="Least score of an object.")
    class_confidence: dict[str, Fraction] = Field(
        default_factory=dict, description="Least score by class name, instead of `confidence`."
    )
    iou: Fraction = Field(default=0.5, description="Overlap above which NMS drops the weaker box.")
    agnostic_nms: bool = Field(default=False, description="NMS across classes.")
    classes: list[str] | None = Field(default=None, description="Only these class names.")
    max_detections: int = Field(
        default=300, ge=1, le=10_000, description="Objects of a frame at the most, best first."
    )
    backend: Literal["auto", "onnxruntime", "openvino", "tensorrt"] = Field(
        default="auto",
        description="Library that runs the model; auto: the fastest that passes the gate.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        default="auto",
        description="Arithmetic of the engine; auto: the fastest that passes the gate. Another "
        "one than asked for is a failure, and the FP32 engine serves on.",
    )
    quantize: QuantizeConfig = Field(
        default=QuantizeConfig(), description="How an int8 engine is made."
    )
    gate: GateConfig = Field(
        default=GateConfig(), description="What an engine must keep of the FP32 model's answers."
    )
    tensorrt: TensorRtConfig = Field(
        default=TensorRtConfig(), description="How TensorRT builds and runs engines."
    )
    providers: list[str] = Field(
        default_factory=lambda: ["CPUExecutionProvider"],
        min_length=1,
        description="ONNX Runtime execution providers, best first.",
    )
    arrangement: Literal["latency", "throughput"] | None = Field(
        default=None,
        description="latency: one inference over all cores; throughput: one a core. Default: "
        "latency if any of its cameras is live, else throughput.",
    )
    threads: int | None = Field(
        default=None, ge=1, le=256, description="Cores to use; default: those available."
    )
    batch: int = Field(default=1, ge=1, le=64, description="Frames run together at the most.")
