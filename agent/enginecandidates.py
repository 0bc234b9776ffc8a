"""Builds the engines that tools compare: one model at one size, several libraries and precisions.

Unlike `agent.building` nothing is judged, chosen or kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.calibration import pictures
from agent.errors import ConfigError
from agent.modelsettings import engine_options, overrides
from engines.backend import Recipe
from engines.backends import available, unavailable
from engines.describe import describe_model
from engines.onnxfile import read_model
from engines.selection import REFERENCE
from engines.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.config import ModelConfig
    from engines.backend import (
        Backend,
        BackendName,
        Options,
        Precision,
        Product,
        Progress,
        RunOptions,
    )
    from engines.base import Engine

SLOT = "tools"
"""Stands for a model that is in no configuration, in messages."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model."""

    backend: BackendName
    precision: Precision

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.precision} on {self.backend}"

    @property
    def reference(self) -> bool:
        """Whether it is what all others are compared with."""
        return (self.backend, self.precision) == REFERENCE


def choose(
    backends: Sequence[Backend],
    wanted_backends: Iterable[str],
    wanted_precisions: Iterable[str],
    *,
    calibrated: bool,
    missing: dict[BackendName, str] | None = None,
) -> list[Candidate]:
    """Which candidates fit what is wanted; the reference comes first, wanted or not.

    Args:
        backends: those that can be used here.
        wanted_backends: names, or "auto" for all.
        wanted_precisions: names, or "auto" for all that are offered.
        calibrated: whether there are pictures for int8.
        missing: why other backends cannot be used here.

    Raises:
        ConfigError: something was asked for by name that is not to be had.
    """
    names, precisions = set(wanted_backends), set(wanted_precisions)
    here = {backend.name for backend in backends}
    for name in sorted(names - {"auto"} - here):
        reason = (missing or {}).get(name) or "there is no such backend"  # type: ignore[call-overload]
        raise ConfigError(f"--backend {name}: {reason}")
    asked = [b for b in backends if "auto" in names or b.name in names]
    offered = {precision for backend in asked for precision in backend.offers()}
    for precision in sorted(precisions - {"auto"} - offered):
        who = ", ".join(backend.name for backend in asked)
        raise ConfigError(
            f"--precision {precision}: not computed here by {who}; "
            f"there is {', '.join(sorted(offered))}"
        )
    if "int8" in precisions and not calibrated:
        raise ConfigError(
            "--precision int8 needs pictures of what the cameras see: give --calibration a folder "
            "or a video"
        )
    found = [Candidate(*REFERENCE)]
    found += [
        Candidate(backend.name, precision)
        for backend in asked
        for precision in backend.offers()
        if ("auto" in precisions or precision in precisions)
        and (precision != "int8" or calibrated)
        and (backend.name, precision) != REFERENCE
    ]
    return found


class Workshop:
    """Builds candidates of one model at one input size.

    Args:
        config: the model's settings; `quantize.calibration` gives the pictures for int8.
        backends: those that can be used; None for all of this machine.

    Attributes:
        info: what the model is, at this size.
        source: the model with its calibration.

    Raises:
        EngineError: the model file cannot be used, or not at this size.
        CalibrationError: the calibration pictures are unusable.
        ConfigError: settings that do not fit the model.
    """

    def __init__(self, config: ModelConfig, backends: Sequence[Backend] | None = None) -> None:
        self.config = config
        file = read_model(config.path)
        self.info = describe_model(file, overrides(SLOT, config))
        self.backends = list(available() if backends is None else backends)
        self.options = engine_options(config, live=True, cache_dir=None)
        calibration = None
        if config.quantize.calibration is not None:
            chosen = config.quantize
            assert chosen.calibration is not None
            calibration, _ = pictures(chosen.calibration, self.info, chosen.images)
        self.source = Source(
            file.model,
            self.info,
            calibration,
            method=config.quantize.method,
            threads=self.options.run.threads,
        )

    def candidates(
        self, backends: Iterable[str] = ("auto",), precisions: Iterable[str] = ("auto",)
    ) -> list[Candidate]:
        """See `choose`."""
        return choose(
            self.backends,
            backends,
            precisions,
            calibrated=self.source.calibration is not None,
            missing=unavailable(),
        )

    def product(
        self,
        candidate: Candidate,
        options: Options,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> Product:
        """Build one, without loading it.

        Raises:
            EngineError: it cannot be built.
        """
        quantised = candidate.precision == "int8"
        head = self.config.quantize.keep_float == "head"
        float_nodes = self.source.head() if quantised and head else frozenset[str]()
        recipe = Recipe(candidate.precision, float_nodes)
        return self._backend(candidate).build(self.source, recipe, options, tell)

    def build(self, candidate: Candidate, run: RunOptions) -> tuple[Product, Engine]:
        """Build and load one.

        Raises:
            EngineError: it cannot be built or loaded.
        """
        options = replace(self.options, run=run)
        product = self.product(candidate, options)
        return product, self._backend(candidate).load(product.blob, self.info, options)

    def _backend(self, candidate: Candidate) -> Backend:
        return next(b for b in self.backends if b.name == candidate.backend)
