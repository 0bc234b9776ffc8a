"""Builds the engine of a model slot: pictures, reference, gate and selection, into the plan cache.

One process builds a key at a time; whoever comes second finds what the first has made.
"""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.calibration import pictures, probe_pictures
from agent.gate import Gate
from agent.groundtruth import truths
from agent.plans import Report, report_of
from engines.backend import Product, Progress, Recipe
from engines.backends import available, unavailable
from engines.errors import BuildError, PlanError
from engines.plan import PlanKey
from engines.selection import BUILD_S, REFERENCE, Selector, built
from engines.sensitivity import order
from engines.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.plans import Plans
    from engines.backend import Backend
    from engines.images import Images
    from engines.selection import Row, Selection

log = logging.getLogger(__name__)

REPORT_SCHEMA = "vigia.engine-report/1"
CANDIDATE_SCHEMA = "vigia.candidate/1"

EXPENSIVE_BUILD_S = 20.0
"""A candidate that took longer is kept by itself, so that a selection that is broken off need not
build it again."""

LOCK_TIMEOUT_S = 2 * 3600.0
"""Longest wait for another process that builds the same engine."""


def build(plans: Plans, tell: Callable[[Progress], None], *, fresh: bool = False) -> Report:
    """Find or build the engine of a slot.

    Args:
        plans: what is wanted.
        tell: takes progress.
        fresh: build even if it is in the cache.

    Raises:
        BuildError: no engine could be taken.
        PlanError: the built one could not be kept.
        CalibrationError: the calibration pictures are unusable.
        EngineError: the model cannot be run at all.
    """
    with plans.cache.lock(plans.key, LOCK_TIMEOUT_S):
        plan = None if fresh else plans.find()
        if plan is not None:
            return report_of(plan)
        began = time.monotonic()
        selection, images = _select(plans, tell)
        value = _describe(plans, selection, images, time.monotonic() - began)
        sidecar = {
            "model": plans.info.name,
            "backend": selection.chosen.backend,
            "precision": selection.chosen.precision,
            "route": selection.product.route,
            "report": value,
        }
        if not plans.cache.put(plans.key, selection.product.blob, sidecar):
            raise PlanError(
                f"the built engine cannot be kept in {plans.request.cache_dir}; "
                "give it room and write permission, or set pipeline.cache_dir"
            )
        return Report(plans.key.hex, cached=False, value=value)


def _select(plans: Plans, tell: Callable[[Progress], None]) -> tuple[Selection, dict[str, object]]:
    config, info, options = plans.request.config, plans.info, plans.options
    quantize = config.quantize
    calibration: Images | None = None
    held_out: Images = probe_pictures(info)
    truth = None
    if quantize.calibration is not None:
        tell(Progress("reading pictures"))
        calibration, held_out = pictures(quantize.calibration, info, quantize.images)
        if quantize.truth is not None:
            truth = truths(quantize.truth, held_out)
    source = Source(
        plans.read_model(),
        info,
        calibration,
        method=quantize.method,
        threads=options.run.threads,
    )
    backends = _allowed(plans, calibration)
    reference_backend = next(b for b in available() if b.name == REFERENCE[0])
    product = reference_backend.build(source, Recipe(REFERENCE[1]), options, tell)
    reference = reference_backend.load(product.blob, info, options)
    try:
        tell(Progress("running the reference"))
        gate = Gate(info, config, reference, held_out, truth)
        selection = Selector(
            info=info,
            backends=backends,
            policy=plans.policy,
            options=options,
            reference=reference,
            judge=gate.judge,
            head=source.head,
            worst=functools.partial(_worst, source, held_out, tell),
            build=functools.partial(_product, plans, source, tell),
            tell=tell,
        ).select()
    finally:
        reference.close()
    used: dict[str, object] = {
        "calibration": 0 if calibration is None else len(calibration),
        "judged": len(held_out),
        "synthetic": calibration is None,
        "truth": truth is not None,
    }
    return selection, used


def _worst(
    source: Source,
    images: Images,
    tell: Callable[[Progress], None],
    float_nodes: frozenset[str],
) -> list[frozenset[str]]:
    return [group.nodes for group in order(source, float_nodes, images, tell)]


def _allowed(plans: Plans, calibration: Images | None) -> list[Backend]:
    """The backends; without pictures, only those that can do what is asked without them.

    Raises:
        BuildError: int8 was asked for and there are no pictures.
    """
    if calibration is None and plans.policy.precisions == ("int8",):
        raise BuildError(
            "int8 needs pictures of what the cameras see: set quantize.calibration to a folder or "
            "a video; `vigia model collect` makes one"
        )
    return plans.backends


def _product(
    plans: Plans,
    source: Source,
    tell: Callable[[Progress], None],
    backend: Backend,
    recipe: Recipe,
) -> Product:
    """Build a candidate, or take it from the cache if it was expensive."""
    key = PlanKey(
        {
            "schema": CANDIDATE_SCHEMA,
            "choice": plans.key.hex,
            "backend": backend.name,
            "precision": recipe.precision,
            "float_nodes": sorted(recipe.float_nodes),
        }
    )
    kept = plans.cache.get(key)
    if kept is not None:
        return Product(kept.blob, str(kept.sidecar.get("route")), facts={"kept": True})
    product = built(backend, recipe, source, plans.options, tell)
    if float(str(product.facts[BUILD_S])) >= EXPENSIVE_BUILD_S:
        sidecar = {
            "model": plans.info.name,
            "backend": backend.name,
            "precision": recipe.precision,
            "route": product.route,
            "candidate": True,
        }
        plans.cache.put(key, product.blob, sidecar)
    return product


def _describe(
    plans: Plans, selection: Selection, images: Mapping[str, object], spent_s: float
) -> dict[str, object]:
    chosen = selection.chosen
    return {
        "schema": REPORT_SCHEMA,
        "model": plans.info.name,
        "digest": plans.info.digest,
        "chosen": {
            "backend": chosen.backend,
            "precision": chosen.precision,
            "route": chosen.route,
            "speedup": _rounded(chosen.speedup),
        },
        "rows": [_row(row) for row in selection.rows],
        "unavailable": dict(unavailable()),
        "pictures": dict(images),
        "arrangement": plans.options.run.arrangement,
        "threads": plans.options.run.threads,
        "spent_s": round(spent_s, 1),
    }


def _row(row: Row) -> dict[str, object]:
    timing = row.timing
    return {
        "backend": row.backend,
        "precision": row.precision,
        "taken": not row.reason,
        "reason": row.reason,
        "route": row.route,
        "attempts": [asdict(attempt) for attempt in row.attempts],
        "ms": None
        if timing is None
        else {
            "p50": _rounded(timing.p50_ms),
            "p95": _rounded(timing.p95_ms),
            "p99": _rounded(timing.p99_ms),
        },
        "speedup": _rounded(row.speedup),
        "figures": dict(row.figures),
        "repairs": list(row.repairs),
        "facts": dict(row.facts),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
