"""Proves candidates on this device: builds, judges, shadows, tries, switches and switches back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.builder import Builder
    from agent.modelslot import ModelSlot
    from agent.pipeline.pipeline import Pipeline
    from agent.update.memoryfolder import MemoryFolder
    from agent.update.ports import Candidate, Finding
    from engines.backend import Progress


class PipelineProofs:
    """Implements `agent.update.ports.Proofs` on a running pipeline.

    Args:
        pipeline: where candidates take over.
        slots: its model slots, by name.
        builder: builds in the background; it is held while something is proven.
        memory: where plaintext may lie; temporary files of the processes go there too.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        slots: Mapping[str, ModelSlot],
        builder: Builder,
        memory: MemoryFolder,
    ) -> None:
        self._pipeline = pipeline
        self._slots = slots
        self._builder = builder
        self._memory = memory

    def build(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        raise NotImplementedError

    def gate(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        raise NotImplementedError

    def shadow(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        raise NotImplementedError

    def canary(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        raise NotImplementedError

    def commit(self, candidate: Candidate) -> None:
        """See `agent.update.ports.Proofs`."""
        raise NotImplementedError

    def revert(self, slot: str, previous: Candidate | None) -> None:
        """See `agent.update.ports.Proofs`."""
        raise NotImplementedError

    def install(self, candidate: Candidate) -> None:
        """Have a committed candidate be a slot's own before anything is loaded: at the start."""
        raise NotImplementedError

    def cancel(self) -> None:
        """See `agent.update.ports.Proofs`; what begins later is not touched."""
        raise NotImplementedError
