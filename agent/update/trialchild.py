"""Runs a candidate's engine in a process of its own: `python -m agent.update.trialchild`.

A model that crashes its runtime, or takes all memory, takes this process with it and not the agent,
which loads the engine only after it has run here. The request comes as `agent.childside` says, with
live frames in a pipe beside it; figures go back, and `agent.update.verdict` judges them elsewhere.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING, Any

import psutil

from agent.childside import serve
from agent.plans import PlanRequest, Plans
from agent.update.shadow import shadow
from agent.update.trialframes import read_frames
from agent.update.trialgate import GateRequest, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.backend import Progress

MEMORY_SHARE = 0.8
"""Of the memory that is free at the start, this process may take so much."""

LEAST_BYTES = 512 * 2**20
"""But so much in any case: the libraries alone take a part of it."""


def act(
    request: dict[str, Any], tell: Callable[[Progress], None]
) -> tuple[str, Mapping[str, object]]:
    """Measure what a request of `agent.update.proofs` asks for."""
    with os.fdopen(int(request["frames"]), "rb") as stream:
        if request["stage"] == "gate":
            live = list(read_frames(stream))
            gate = GateRequest.from_json(request["gate"])
            _limit_memory(gate.candidate)
            return "", measure(gate, live, tell)
        candidate = PlanRequest.from_json(request["candidate"])
        _limit_memory(candidate)
        return "", shadow(candidate, request["names"], read_frames(stream), tell)


def _limit_memory(request: PlanRequest) -> None:
    """Cap what can be written to; see RLIMIT_DATA in getrlimit(2), Linux 4.7 and newer.

    An allocation beyond it fails, which is an error of the model like any other; without it, the
    kernel would look for memory elsewhere first. CUDA reserves far more than it ever fills, so
    TensorRT goes without.
    """
    plan = Plans(request).find()
    if plan is None or plan.sidecar.get("backend") == "tensorrt":
        return
    used = int(psutil.Process().memory_info().vms)
    limit = max(LEAST_BYTES, int(psutil.virtual_memory().available * MEMORY_SHARE)) + used
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    sys.exit(serve(act))
