"""Builds every engine that may serve, judges and races them, and names the one to take.

The reference (FP32 on ONNX Runtime) is the first champion. Every other candidate is built, proven
to compute in the precision that was asked for, judged against the reference, and raced against the
champion of the moment. An int8 engine that fails the judge is built again with its worst layers in
floating point. Everything that was tried is in the report, with figures and reasons.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from engines.backend import Progress, Recipe
from engines.errors import BuildError, EngineError
from engines.race import Timing, race, solo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from engines.backend import Attempt, Backend, BackendName, Options, Precision, Product
    from engines.base import Engine
    from engines.compare import Verdict
    from engines.model import ModelInfo
    from engines.source import Source

log = logging.getLogger(__name__)

MAX_REPAIRS = 4
"""How often the worst layers of an int8 engine are put back to floating point before it is given
up."""

BUILD_S = "build_s"
"""Key of a product's facts: how long it took to build, seconds."""

REFERENCE: tuple[BackendName, Precision] = ("onnxruntime", "fp32")
"""What all others are compared with; it needs neither judge nor proof."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be chosen.

    Attributes:
        backends: names allowed.
        precisions: precisions allowed.
        keep_float: what stays in floating point in the first int8 engine.
        min_speedup: an int8 engine takes the place of another only if it is so many times as fast.
    """

    backends: tuple[BackendName, ...]
    precisions: tuple[Precision, ...]
    keep_float: Literal["head", "none"] = "head"
    min_speedup: float = 1.05


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one candidate.

    Attributes:
        backend: which library.
        precision: which arithmetic was asked for.
        route: how it was built; empty if it was not.
        attempts: every way to build it that was tried.
        figures: what the judge measured.
        facts: what the builder told.
        timing: of one inference, or None if it was not timed.
        speedup: how many times as fast as the reference, or None.
        repairs: nodes put back to floating point, one sentence for each repair.
        reason: why it was not taken; empty for the one that was.
    """

    backend: BackendName
    precision: Precision
    route: str = ""
    attempts: tuple[Attempt, ...] = ()
    figures: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    timing: Timing | None = None
    speedup: float | None = None
    repairs: tuple[str, ...] = ()
    reason: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.precision} on {self.backend}"


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The outcome.

    Attributes:
        chosen: the row that was taken; it is in `rows` too.
        product: its engine, not loaded.
        rows: every candidate in the order they were tried.
    """

    chosen: Row
    product: Product
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Entrant:
    """A candidate that was built, loaded and found right."""

    row: Row
    product: Product
    engine: Engine


class Selector:
    """One selection.

    Args:
        info: of the model.
        backends: those that can be used here.
        policy: what may be chosen.
        options: how engines are built and run.
        reference: the FP32 engine on ONNX Runtime; not closed here.
        judge: compares an engine with the reference.
        head: gives the nodes at the outputs, which quantisation breaks first.
        worst: gives groups of nodes whose quantisation hurts, worst first, while the nodes it is
            given stay in floating point.
        build: makes a product, or finds it among those made earlier.
        tell: takes progress.
    """

    def __init__(
        self,
        *,
        info: ModelInfo,
        backends: Sequence[Backend],
        policy: Policy,
        options: Options,
        reference: Engine,
        judge: Callable[[Engine, Precision], Verdict],
        head: Callable[[], frozenset[str]],
        worst: Callable[[frozenset[str]], Sequence[frozenset[str]]],
        build: Callable[[Backend, Recipe], Product],
        tell: Callable[[Progress], None],
    ) -> None:
        self._info = info
        self._backends = {b.name: b for b in backends if b.name in policy.backends}
        self._policy = policy
        self._options = options
        self._reference = reference
        self._judge = judge
        self._head = head
        self._worst = worst
        self._build = build
        self._tell = tell
        self._groups: list[frozenset[str]] | None = None

    def select(self) -> Selection:
        """Try all candidates.

        Raises:
            BuildError: none can be taken; the message names each and why it fell.
        """
        rows: dict[str, Row] = {}
        champion: _Entrant | None = None
        try:
            for backend, precision in candidates(list(self._backends.values()), self._policy):
                log.info("engine: trying %s on %s", precision, backend.name)
                tried = self._enter(backend, precision)
                if isinstance(tried, Row):
                    rows[tried.name] = tried
                elif champion is None:
                    champion = self._first(tried)
                else:
                    champion, loser = self._meet(champion, tried)
                    rows[loser.name] = loser
                if champion is not None:
                    rows[champion.row.name] = champion.row
        finally:
            if champion is not None:
                self._close(champion.engine)
        if champion is None:
            raise BuildError(_refusal(list(rows.values()), self._policy))
        return Selection(champion.row, champion.product, tuple(rows.values()))

    def _enter(self, backend: Backend, precision: Precision) -> _Entrant | Row:
        """Build, prove and judge; a row with a reason if it fell."""
        row = Row(backend.name, precision)
        float_nodes = self._first_float_nodes() if precision == "int8" else frozenset()
        for repairs_left in range(MAX_REPAIRS, -1, -1):
            try:
                entrant, verdict = self._try(backend, Recipe(precision, float_nodes), row)
            except EngineError as error:
                return replace(row, reason=str(error))
            if verdict is None or verdict.passed:
                return entrant
            self._close(entrant.engine)
            row = replace(entrant.row, reason="; ".join(verdict.reasons))
            group = self._next_worst(float_nodes) if precision == "int8" and repairs_left else None
            if group is None:
                break
            float_nodes |= group
            repaired = f"{verdict.reasons[0]}: {len(group)} more layers in floating point"
            row = replace(row, repairs=(*row.repairs, repaired))
        return row

    def _try(self, backend: Backend, recipe: Recipe, row: Row) -> tuple[_Entrant, Verdict | None]:
        product = self._build(backend, recipe)
        row = replace(
            row, route=product.route, attempts=product.attempts, facts=product.facts, reason=""
        )
        if (backend.name, recipe.precision) == REFERENCE:
            return _Entrant(row, product, self._reference), None
        engine = backend.load(product.blob, self._info, self._options)
        if engine.precision != recipe.precision:
            engine.close()
            raise BuildError(
                f"asked {backend.name} for {recipe.precision}, got {engine.precision}: "
                f"{product.route} did not do what it was asked"
            )
        try:
            self._tell(Progress(f"judging {row.name}"))
            verdict = self._judge(engine, recipe.precision)
        except EngineError:
            engine.close()
            raise
        return _Entrant(replace(row, figures=verdict.figures), product, engine), verdict

    def _first_float_nodes(self) -> frozenset[str]:
        return self._head() if self._policy.keep_float == "head" else frozenset()

    def _next_worst(self, float_nodes: frozenset[str]) -> frozenset[str] | None:
        """The layers whose quantisation hurts most among those still quantised.

        The head comes before everything that is measured: it is what quantisation breaks first.
        """
        head = self._head()
        if not head <= float_nodes:
            return head - float_nodes
        if self._groups is None:
            self._groups = list(self._worst(float_nodes))
        while self._groups:
            group = self._groups.pop(0) - float_nodes
            if group:
                return group
        return None

    def _first(self, entrant: _Entrant) -> _Entrant:
        """The first champion is timed against the reference, if it is another engine."""
        self._tell(Progress(f"timing {entrant.row.name}"))
        if entrant.engine is self._reference:
            timing, speedup = solo(entrant.engine, self._batch), 1.0
        else:
            result = race(self._reference, entrant.engine, self._batch)
            timing, speedup = result.second, result.ratio
        return replace(entrant, row=replace(entrant.row, timing=timing, speedup=speedup))

    def _meet(self, champion: _Entrant, challenger: _Entrant) -> tuple[_Entrant, Row]:
        """Race two; returns the winner, and the loser's row."""
        self._tell(Progress(f"timing {challenger.row.name}"))
        try:
            result = race(champion.engine, challenger.engine, self._batch)
        except EngineError as error:
            self._close(challenger.engine)
            return champion, replace(challenger.row, reason=str(error))
        before = champion.row.speedup or 1.0
        challenger = replace(
            challenger,
            row=replace(challenger.row, timing=result.second, speedup=before * result.ratio),
        )
        needed = needed_ratio(champion.row.precision, challenger.row.precision, self._policy)
        if result.ratio >= needed:
            self._close(champion.engine)
            lost = replace(champion.row, reason=f"{challenger.row.name} is {result.ratio:.2f} x")
            return challenger, lost
        self._close(challenger.engine)
        reason = f"{result.ratio:.2f} x {champion.row.name}; {needed:.2f} x is needed"
        return champion, replace(challenger.row, reason=reason)

    @property
    def _batch(self) -> int:
        return self._info.max_batch or self._options.run.batch

    def _close(self, engine: Engine) -> None:
        if engine is not self._reference:
            engine.close()


def candidates(backends: Sequence[Backend], policy: Policy) -> list[tuple[Backend, Precision]]:
    """What is tried, in order: floating point of every backend before int8 of any.

    An int8 engine must beat the best of the others by a margin, so it meets them last.
    """
    return [
        (backend, precision)
        for quantised in (False, True)
        for backend in backends
        for precision in backend.offers()
        if (precision == "int8") is quantised
        and backend.name in policy.backends
        and precision in policy.precisions
    ]


def needed_ratio(champion: Precision, challenger: Precision, policy: Policy) -> float:
    """How many times as fast a challenger must be to take a champion's place."""
    return policy.min_speedup if challenger == "int8" and champion != "int8" else 1.0


def built(
    backend: Backend,
    recipe: Recipe,
    source: Source,
    options: Options,
    tell: Callable[[Progress], None],
) -> Product:
    """Build and note how long it took.

    Raises:
        EngineError: it cannot be built.
    """
    began = time.monotonic()
    product = backend.build(source, recipe, options, tell)
    return replace(product, facts={**product.facts, BUILD_S: round(time.monotonic() - began, 2)})


def _refusal(rows: Sequence[Row], policy: Policy) -> str:
    if not rows:
        return (
            f"no engine can be built: of {', '.join(policy.backends)}, none that can be used here "
            f"computes in {' or '.join(policy.precisions)} on this machine; set precision: auto, "
            "or install the backend's library"
        )
    fallen = "; ".join(f"{row.name}: {row.reason}" for row in rows)
    return f"no engine can be taken: {fallen}"
