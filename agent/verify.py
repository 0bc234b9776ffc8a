"""The gate on any two of model files, built engines and recipes: do they answer the same?"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.calibration import pictures as read_pictures
from agent.gate import Gate
from agent.groundtruth import truths
from agent.verifyfaults import explain
from agent.verifyside import load, sides
from engines.backend import Progress
from engines.onnxfile import read_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.calibration import PictureSet
    from agent.verifyside import Request, Side
    from engines.base import Engine
    from engines.compare import Verdict
    from engines.model import ModelInfo

SCHEMA = "vigia.engine-verify/1"

NAMES_SHOWN = 6
"""Class names in a message: enough to recognise a model."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        verdict: the gate's.
        looks_like: what the candidate suffers from, the likeliest first.
        reference: facts of the reference, JSON values.
        candidate: facts of the candidate, JSON values.
    """

    verdict: Verdict
    looks_like: tuple[str, ...]
    reference: dict[str, object]
    candidate: dict[str, object]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "schema": SCHEMA,
            "passed": self.verdict.passed,
            "reasons": list(self.verdict.reasons),
            "looks_like": list(self.looks_like),
            "reference": self.reference,
            "candidate": self.candidate,
            "figures": dict(self.verdict.figures),
        }


def verify(request: Request, tell: Callable[[Progress], None]) -> Outcome:
    """Compare the two.

    Raises:
        ConfigError: a mistake in what was named.
        EngineError: one of them cannot be built or run, or the pictures are unusable.
        OutputError: the reference's outputs cannot be decoded.
    """
    reference, candidate = sides(request)
    tell(Progress("reading pictures"))
    calibration, held_out = read_pictures(request.pictures, reference.info, request.images)
    truth = None if request.truth is None else truths(request.truth, held_out)
    with ExitStack() as stack:
        engines = []
        for side in (reference, candidate):
            tell(Progress(f"loading {side.spec.text}"))
            engine = load(side, request, calibration, tell)
            stack.callback(engine.close)
            engines.append(engine)
        first, second = engines
        tell(Progress("comparing"))
        gate = Gate(reference.info, reference.config, first, held_out, truth)
        verdict = gate.compare(
            second, candidate.info, held_out.prepared_for(candidate.info), second.precision
        )
        strange = _strangeness(reference, candidate)
        verdict = replace(
            verdict,
            passed=verdict.passed and not strange,
            reasons=(*strange, *verdict.reasons),
        )
        looks_like: tuple[str, ...] = ()
        if not verdict.passed and reference.path is not None:
            tell(Progress("looking for the cause"))
            looks_like = _causes(reference, candidate, held_out, second)
    return Outcome(verdict, looks_like, _facts(reference, first), _facts(candidate, second))


def _causes(
    reference: Side, candidate: Side, held_out: PictureSet, engine: Engine
) -> tuple[str, ...]:
    path = reference.path
    assert path is not None
    return tuple(
        explain(lambda: read_model(path).model, reference.info, held_out, engine, candidate.info)
    )


def _strangeness(reference: Side, candidate: Side) -> tuple[str, ...]:
    """What speaks against comparing the two at all."""
    reasons = []
    for side, other in ((reference, candidate), (candidate, reference)):
        built_from = side.built_from
        if built_from not in (None, other.info.digest):
            reasons.append(
                f"the plan {side.spec.text} was built of another model "
                f"({str(built_from)[:19]}) than {other.spec.text} ({other.info.digest[:19]})"
            )
    if reference.info.names != candidate.info.names:
        reasons.append(
            f"the class names differ: {_listed(candidate.info)} instead of "
            f"{_listed(reference.info)}"
        )
    return tuple(reasons)


def _listed(info: ModelInfo) -> str:
    shown = ", ".join(info.names[:NAMES_SHOWN])
    return f"{shown} …" if len(info.names) > NAMES_SHOWN else shown


def _facts(side: Side, engine: Engine) -> dict[str, object]:
    return {
        "name": side.spec.text,
        "backend": engine.backend,
        "precision": engine.precision,
        "model": side.built_from or side.info.digest,
        "resize": side.info.resize.value,
        "width": side.info.width,
        "height": side.info.height,
    }
