"""A built engine in a trial's process: loaded as it would serve, run on one picture at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.frame import Frame
from agent.gate import LEAST_SCORE, MAP_DETECTIONS
from agent.models import load_plan, load_ready
from agent.modelsettings import postprocess_settings
from agent.pipeline.intake import Ticket
from agent.pipeline.worker import Slot
from agent.plans import PlanRequest, Plans
from agent.vision.decode import Decoder
from engines.errors import PlanError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.detection import Detections
    from agent.pipeline.worker import LoadedModel

MS_PER_S = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a model says to a picture.

    Attributes:
        found: objects as they would be published.
        all_found: objects of every score, or None if they were not asked for.
        infer_ms: time of the inference.
        decode_ms: time of making `found` of its outputs.
    """

    found: Detections
    all_found: Detections | None
    infer_ms: float
    decode_ms: float


class TrialModel:
    """A loaded engine and one context.

    Args:
        request: whose engine.
        proven: take the built engine and nothing else; else whatever would serve now.

    Raises:
        PlanError: it was not built, or its plan has gone.
        EngineError: it cannot be loaded or run.
        ConfigError: settings that do not fit the model.
    """

    def __init__(self, request: PlanRequest, *, proven: bool) -> None:
        plans = Plans(request)
        self.model = _proven(plans) if proven else load_ready(plans)
        try:
            settings = postprocess_settings(request.slot, request.config, plans.info)
            self.wanted = settings.classes
            self._every = Decoder(
                plans.info,
                replace(
                    settings,
                    confidence=LEAST_SCORE,
                    class_confidence={},
                    max_detections=max(MAP_DETECTIONS, settings.max_detections),
                ),
            )
            self.batch = plans.info.max_batch or 1
            self._slot = Slot(self.model, self.batch)
        except BaseException:
            self.model.engine.close()
            raise

    def __enter__(self) -> TrialModel:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_error: object) -> None:
        self._slot.context.close()
        self.model.engine.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Class names."""
        return self.model.ref.names

    def reply(self, pixels: NDArray[np.uint8], *, every: bool = False) -> Reply:
        """Run it on a picture.

        Args:
            pixels: BGR, uint8, [height, width, 3], of any size.
            every: give objects of every score too.

        Raises:
            InferenceError: it failed.
            OutputError: its outputs cannot be decoded: NaN, infinite, or of another shape.
        """
        placement = self._slot.write(0, Ticket(Frame(pixels, "", 0, 0, 0.0), 0, 0))
        began = time.perf_counter()
        outputs = self._slot.context.infer()
        inferred = time.perf_counter()
        found = self.model.decoder(outputs, 0, placement)
        decoded = time.perf_counter()
        return Reply(
            found,
            self._every(outputs, 0, placement) if every else None,
            (inferred - began) * MS_PER_S,
            (decoded - inferred) * MS_PER_S,
        )


def _proven(plans: Plans) -> LoadedModel:
    plan = plans.find()
    if plan is None:
        raise PlanError("the engine that was built is not in the plan cache any more")
    return load_plan(plans, plan)
