"""Every setting of the agent: names, types, limits and defaults.

Values carry their unit in their name. `agent.configfile` reads these from YAML; nothing here does
I/O. Defaults are such that `cameras:` and `mqtt.host:` suffice where the model has its default
place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Names of devices, cameras and models: they become MQTT topic levels and file names."""

PREFIX_PATTERN = r"^[^/#+\x00]+(/[^/#+\x00]+)*$"
"""Topic levels, none empty, without wildcards."""

HOST_PATTERN = r"^[^\s/]+$"
"""Not a URL; whether such a host exists is found out by connecting."""

FOURCC_PATTERN = r"^[ -~]{4}$"
"""Video4Linux's four-character codes are printable ASCII."""

DEFAULT_MODEL_PATH = Path("/var/lib/vigia/models/main.onnx")

WHOLE = re.compile(r"\d{1,9}", re.ASCII)


def _whole(value: object) -> object:
    """Files and secrets give texts; pydantic turns them into numbers, but not in a Literal."""
    return int(value) if isinstance(value, str) and WHOLE.fullmatch(value) else value


Whole = BeforeValidator(_whole)
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class DeviceConfig(Section):
    """Who this device is."""

    id: Name | None = Field(
        default=None,
        description="Device id in topics and MQTT client id; default: the host name.",
    )


class TlsConfig(Section):
    """TLS to the broker; `tls: {}` verifies against the system's certificate authorities."""

    ca_file: Path | None = Field(default=None, description="PEM file of the broker's CA.")
    cert_file: Path | None = Field(default=None, description="PEM client certificate (mutual TLS).")
    key_file: Path | None = Field(default=None, description="PEM private key of cert_file.")
    key_password: SecretStr | None = Field(default=None, description="Password of key_file.")
    server_name: str | None = Field(
        default=None, description="Name the broker's certificate must carry; default: mqtt.host."
    )

    @model_validator(mode="after")
    def _pair(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        return self


class DetectionsConfig(Section):
    """How detections are published."""

    qos: Annotated[Literal[0, 1], Whole] = Field(default=0, description="MQTT quality of service.")
    expiry_s: int | None = Field(
        default=60, ge=1, le=86_400, description="MQTT 5 message expiry; null: never."
    )
    empty: bool = Field(default=True, description="Publish frames in which nothing was found.")
    max_rate_hz: float | None = Field(
        default=None, gt=0, le=1000, description="Messages a second and camera at the most."
    )


class MqttConfig(Section):
    """The broker and what is said to it."""

    host: str = Field(pattern=HOST_PATTERN, description="Broker's host name or address.")
    port: int | None = Field(
        default=None, ge=1, le=65_535, description="Default 1883, with tls 8883."
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="auto tries 5 and falls back to 3.1.1."
    )
    username: str | None = Field(default=None, description="User name; default: anonymous.")
    password: SecretStr | None = Field(
        default=None, description="Password of username; best as ${env:NAME} or ${file:/path}."
    )
    tls: TlsConfig | None = Field(default=None, description="Encrypt; default: plain TCP.")
    prefix: str = Field(
        default="vigia/v1", pattern=PREFIX_PATTERN, description="First levels of every topic."
    )
    keepalive_s: int = Field(
        default=30, ge=5, le=3600, description="The broker notices our death after 1.5 times this."
    )
    connect_timeout_s: Seconds = Field(
        default=10.0, description="An attempt to connect is given up after this."
    )
    reconnect_initial_s: Seconds = Field(
        default=0.5, description="Wait before the second attempt; each later one about doubles."
    )
    reconnect_max_s: Seconds = Field(default=30.0, description="Longest wait between attempts.")
    detections: DetectionsConfig = Field(
        default=DetectionsConfig(), description="How detections are published."
    )
    outbox_messages: int = Field(
        default=2000, ge=1, le=1_000_000, description="Messages kept while the broker is away."
    )
    outbox_bytes: int = Field(
        default=16 * 2**20, ge=65_536, le=2**30, description="Bytes kept while it is away."
    )
    telemetry_interval_s: float = Field(
        default=30.0, ge=1.0, le=3600.0, description="Time between telemetry messages."
    )

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return self.port or (8883 if self.tls is not None else 1883)


class CropConfig(Section):
    """A region of interest, as fractions of the rotated and flipped picture."""

    left: Fraction = Field(default=0.0, description="Left edge; 0 is the picture's left edge.")
    top: Fraction = Field(default=0.0, description="Top edge; 0 is the picture's top edge.")
    right: Fraction = Field(default=1.0, description="Right edge; 1 is the picture's right edge.")
    bottom: Fraction = Field(default=1.0, description="Bottom edge; 1 is the picture's bottom.")

    @model_validator(mode="after")
    def _ordered(self) -> CropConfig:
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("left must be less than right, and top less than bottom")
        return self


class CameraConfig(Section):
    """One source of frames."""

    source: str = Field(
        min_length=1,
        json_schema_extra={"type": ["string", "integer"]},
        description="rtsp://…, http(s)://…, /dev/videoN or a number, csi://N, a file, folder or "
        "glob, synthetic://WxH@FPS, or a GStreamer pipeline ending in an appsink.",
    )
    kind: Literal[
        "auto", "file", "images", "rtsp", "v4l2", "csi", "gstreamer", "http", "synthetic"
    ] = Field(default="auto", description="auto: told from `source`.")
    enabled: bool = Field(default=True, description="false: leave it alone, but keep its settings.")
    model: Name = Field(default="main", description="Which of `models` looks at it.")
    fps: float | None = Field(default=None, gt=0, le=1000, description="Frames a second at most.")
    rotate: Annotated[Literal[0, 90, 180, 270], Whole] = Field(
        default=0, description="Degrees clockwise."
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none", description="Mirror after rotating; horizontal swaps left and right."
    )
    crop: CropConfig | None = Field(
        default=None, description="Look at a part of the picture only; default: all of it."
    )
    max_age_ms: float | None = Field(
        default=None, gt=0, description="Live frames older than this are not inferred."
    )
    loop: bool = Field(default=False, description="Files: start over at the end.")
    realtime: bool = Field(default=False, description="Files: play at the file's own speed.")
    width: int | None = Field(default=None, ge=16, le=16_384, description="Asked of V4L2 or CSI.")
    height: int | None = Field(default=None, ge=16, le=16_384, description="Asked of V4L2 or CSI.")
    device_fps: float | None = Field(default=None, gt=0, le=1000, description="Asked of them too.")
    fourcc: str | None = Field(default=None, pattern=FOURCC_PATTERN, description="V4L2, e.g. MJPG.")
    transport: Literal["tcp", "udp"] = Field(default="tcp", description="RTSP transport.")
    codec: Literal["auto", "h264", "h265", "mjpeg"] = Field(
        default="auto", description="RTSP or file codec, for the hardware decoder."
    )
    decoder: Literal["auto", "gstreamer", "ffmpeg"] = Field(
        default="auto", description="auto: GStreamer's hardware decoder on a Jetson, else FFmpeg."
    )
    open_timeout_s: Seconds = Field(
        default=10.0, description="An attempt to open a live source is given up after this."
    )
    stall_timeout_s: Seconds = Field(default=5.0, description="No frame for this long: reopen.")
    reconnect_initial_s: Seconds = Field(
        default=0.5, description="Wait before the second attempt; each later one about doubles."
    )
    reconnect_max_s: Seconds = Field(default=30.0, description="Longest wait between attempts.")


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


class LogConfig(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important messages shown."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, else JSON lines."
    )


class PipelineConfig(Section):
    """How stages are joined."""

    queue_frames: int = Field(
        default=4, ge=1, le=64, description="Frames of a lossless source that may wait."
    )
    shutdown_timeout_s: float = Field(
        default=3.0, gt=0, le=60, description="Time to finish what was begun when stopping."
    )
    cache_dir: Path | None = Field(
        default=None, description="Where built engines are kept; default: XDG cache folder."
    )
    cache_max_mb: int = Field(
        default=2048, ge=16, le=1_048_576, description="Size of built engines kept; oldest go."
    )


class Config(Section):
    """The whole file."""

    device: DeviceConfig = Field(default=DeviceConfig(), description="Who this device is.")
    mqtt: MqttConfig = Field(description="The broker and what is said to it.")
    cameras: dict[Name, CameraConfig] = Field(
        min_length=1, description="Sources of frames by name; the name is a topic level."
    )
    models: dict[Name, ModelConfig] = Field(
        default_factory=lambda: {"main": ModelConfig()},
        min_length=1,
        description="Model slots by name; cameras choose one.",
    )
    pipeline: PipelineConfig = Field(default=PipelineConfig(), description="How stages are joined.")
    log: LogConfig = Field(default=LogConfig(), description="What is logged.")

    @model_validator(mode="after")
    def _models_exist(self) -> Config:
        for name, camera in self.cameras.items():
            if camera.model not in self.models:
                raise PydanticCustomError(
                    "unknown_model",
                    "no such model in `models`; there: {known}",
                    {"known": ", ".join(sorted(self.models)), "key": ("cameras", name, "model")},
                )
        return self
