"""What a model slot asks of the parts around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from agent.buildprocess import Built
    from agent.pipeline.worker import LoadedModel
    from engines.backend import Progress
    from engines.plan import Plan


class Pipelines(Protocol):
    """What a slot needs of `agent.pipeline.pipeline.Pipeline`."""

    def swap(self, slot: str, model: LoadedModel) -> Future[None]:
        """Have a loaded model take over."""

    def replace(self, slot: str, load: Callable[[], LoadedModel]) -> Future[None]:
        """Close the model that serves, then load one."""

    def model(self, slot: str) -> LoadedModel | None:
        """The model that serves, if there is one."""


class Engines(Protocol):
    """The engines of a request: what is ready, what was built."""

    @property
    def digest(self) -> str:
        """Of the model file, as in `agent.detection.ModelRef`."""

    @property
    def size(self) -> int:
        """Of what `load_ready` loads, bytes; 0 if that cannot be told."""

    @property
    def reference(self) -> tuple[str, str]:
        """Backend and precision of the engine that needs no building."""

    def load_ready(self) -> LoadedModel:
        """Load the built engine, or the reference where there is none."""

    def load_reference(self) -> LoadedModel:
        """Load the reference."""

    def wanted(self) -> bool:
        """Whether a build could choose anything but the reference."""

    def find(self) -> Plan | None:
        """What was built for exactly this request."""

    def load(self, plan: Plan) -> LoadedModel:
        """Load what was built."""


class Run(Protocol):
    """Runs a build."""

    def __call__(
        self,
        request: Mapping[str, object],
        timeout_s: float,
        tell: Callable[[Progress], None],
    ) -> Built:
        """Run it to its end; raises BuildError."""
