"""A backend whose engines are fakes, for what compares engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engines.backend import Attempt, Options, Precision, Product, Progress, Recipe
from engines.errors import BuildError
from engines.model import ModelInfo
from engines.source import Source
from tests.fakes.engine import FakeEngine


class FakeBackend:
    """Implements `engines.backend.Backend`.

    Args:
        name: as configured.
        precisions: offered.
        refuses: offered, but not built.
        boxes: candidates of the two-class detector that every engine is.
        side: of its input, pixels.
    """

    def __init__(
        self,
        name: str,
        precisions: Sequence[Precision],
        *,
        refuses: Sequence[Precision] = (),
        boxes: int = 8,
        side: int = 32,
    ) -> None:
        self.name = name
        self.engines: list[FakeEngine] = []
        self.recipes: list[Recipe] = []
        self.options: list[Options] = []
        self._precisions = tuple(precisions)
        self._refuses = refuses
        self._shape = (boxes, side)

    def why_not(self) -> str:
        return ""

    def offers(self) -> tuple[Precision, ...]:
        return self._precisions

    def fingerprint(self) -> Mapping[str, str]:
        return {"version": "1"}

    def build(
        self, source: Source, recipe: Recipe, options: Options, tell: Callable[[Progress], None]
    ) -> Product:
        if recipe.precision in self._refuses:
            raise BuildError(f"{self.name} cannot build {recipe.precision}")
        self.recipes.append(recipe)
        self.options.append(options)
        return Product(recipe.precision.encode(), "fake route", (Attempt("fake route"),))

    def load(self, blob: bytes, info: ModelInfo, options: Options) -> FakeEngine:
        boxes, side = self._shape
        lanes = options.run.threads if options.run.arrangement == "throughput" else 1
        engine = FakeEngine(
            lambda images: np.zeros((len(images), 6, boxes), np.float32), side, lanes, boxes
        )
        engine.backend = self.name
        engine.precision = blob.decode()
        self.engines.append(engine)
        return engine
