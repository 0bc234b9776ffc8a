"""Progress of a build, from TensorRT 10 on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engines.backend import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.trt.api import TrtApi


def make_monitor(api: TrtApi, tell: Callable[[Progress], None]) -> Any:
    """A progress monitor of this TensorRT.

    An exception of `tell` would be printed and lost; it is kept as `error`, and ends the build.
    """
    base = api.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            # Required by the binding: without it the object cannot be made.
            base.__init__(self)
            self.error: Exception | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase  # Phases are told one by one.
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                # A step's number counts from 0.
                total = self._steps.get(phase_name, 0)
                tell(Progress(f"building: {phase_name}", step + 1, total))
            except Exception as error:  # noqa: BLE001 - the bindings would print it
                self.error = self.error or error
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
