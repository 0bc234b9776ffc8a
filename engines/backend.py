"""What a library that builds and runs engines offers, and what is asked of it.

A backend turns a `Source` and a `Recipe` into a `Product`, whose bytes are kept in the plan cache,
and turns the bytes back into an `Engine`. Whether the engine is right and fast is not its business:
`engines.selection` compares all of them by the same gates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from engines.base import Engine
    from engines.model import ModelInfo
    from engines.source import Source

BackendName = Literal["onnxruntime", "openvino", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]

FLOATS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
"""Precisions that need no calibration."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long step has come.

    Attributes:
        step: what is being done, for people: "calibrating", "building", "judging".
        done: units finished.
        total: units in all; 0 where that is not known.
    """

    step: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be built.

    Attributes:
        precision: the arithmetic asked for.
        float_nodes: names of nodes that stay in floating point in an int8 engine.
    """

    precision: Precision
    float_nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How an engine is run; for every backend.

    Attributes:
        arrangement: "latency" runs one inference over `threads` cores; "throughput" runs `threads`
            inferences at once, each on one core.
        threads: processor cores to use.
        batch: largest batch that will be asked for, where the model leaves it open.
        providers: ONNX Runtime's execution providers, best first.
    """

    arrangement: Literal["latency", "throughput"] = "latency"
    threads: int = 1
    batch: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """How TensorRT builds and runs; ignored by other backends.

    Attributes:
        workspace_bytes: scratch memory a layer may use; None chooses by free memory.
        level: builder optimisation level 0..5; None chooses by the board's memory.
        dla_core: number of the deep learning accelerator, or None for the GPU.
        preprocess: "cpu" takes uint8 frames prepared on the host; "cuda" prepares them on the GPU.
        cuda_graphs: capture the enqueued work once and replay it.
        timeout_s: a build is given up after this long.
        memory_bytes: address space the build process may use beside the driver's; None: no cap.
        timing_folder: where timing caches are kept; None: nowhere.
    """

    workspace_bytes: int | None = None
    level: int | None = None
    dla_core: int | None = None
    preprocess: Literal["cpu", "cuda"] = "cpu"
    cuda_graphs: bool = True
    timeout_s: float = 3600.0
    memory_bytes: int | None = None
    timing_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that is not the model, its calibration or its recipe."""

    run: RunOptions = RunOptions()
    tensorrt: TensorRtOptions = TensorRtOptions()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to build that was tried.

    Attributes:
        route: its name, e.g. "strong fp16 q/dq".
        reason: why it fell; empty for the one that was taken.
    """

    route: str
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A built engine, not loaded.

    Attributes:
        blob: what `Backend.load` takes.
        route: name of the way it was built.
        attempts: every way that was tried, in order; the last one was taken.
        facts: figures for the report, as JSON values: build_s, layers, reformats and such.
    """

    blob: bytes
    route: str
    attempts: tuple[Attempt, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


class Backend(Protocol):
    """One library."""

    @property
    def name(self) -> BackendName:
        """As configured and published."""

    def why_not(self) -> str:
        """Why it cannot be used here, with what to do; empty if it can."""

    def offers(self) -> tuple[Precision, ...]:
        """Precisions that this machine really computes in with this library, slowest first."""

    def fingerprint(self) -> Mapping[str, str]:
        """Part of the plan key: everything of library and machine that a blob depends on."""

    def build(
        self, source: Source, recipe: Recipe, options: Options, tell: Callable[[Progress], None]
    ) -> Product:
        """Build an engine.

        Raises:
            BuildError: no way led to an engine; the message names each and why it fell.
            CalibrationError: int8 was asked for and the calibration pictures are unusable.
        """

    def load(self, blob: bytes, info: ModelInfo, options: Options) -> Engine:
        """Load what `build` made; `Engine.precision` is proven, not copied from the recipe.

        Raises:
            PlanError: the bytes are not a plan of this library, version or machine.
            BackendError: the library refuses them, or memory is short.
        """
