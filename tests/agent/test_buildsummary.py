from __future__ import annotations

import json

import jsonschema
import pytest

from agent.buildsummary import MAX_CANDIDATES, summary
from agent.wire import messages
from agent.wire.buildstate import MAX_REASON, BuildState
from agent.wire.schema import MODEL_STATE, schema

ROW = {
    "backend": "onnxruntime",
    "precision": "int8",
    "taken": True,
    "reason": "",
    "route": "q/dq",
    "attempts": [{"route": "q/dq", "reason": ""}],
    "ms": {"p50": 5.125, "p95": 6.0, "p99": 7.0},
    "speedup": 2.1,
    "figures": {"cosine": 0.9991, "matched": 0.98, "pictures": 64, "notes": []},
    "repairs": [],
    "facts": {"build_s": 3.0},
}
REPORT = {
    "schema": "vigia.engine-report/1",
    "model": "m",
    "chosen": {"backend": "onnxruntime", "precision": "int8", "route": "q/dq", "speedup": 2.1},
    "rows": [ROW],
    "unavailable": {"tensorrt": "not installed"},
    "pictures": {"calibration": 100, "judged": 64, "synthetic": False, "truth": False},
    "spent_s": 20.5,
}


def published(report: dict) -> dict:
    """The summary as a reader gets it, checked against the schema."""
    state = BuildState("ready", report=summary(report))
    message = json.loads(messages.encode_model_state("d", "b", "main", None, state))
    jsonschema.validate(message, schema(MODEL_STATE))
    return message["build"]["report"]


def test_the_choice_the_times_and_the_gates_figures_are_told():
    found = published(REPORT)
    assert found["chosen"] == {"backend": "onnxruntime", "precision": "int8", "route": "q/dq"}
    assert (found["speedup"], found["spent_s"], found["judged"]) == (2.1, 20.5, 64)
    (row,) = found["candidates"]
    assert row["p50_ms"] == 5.125
    assert row["gate"] == {"cosine": 0.9991, "matched": 0.98}
    assert "reason" not in row


def test_what_fell_is_told_with_its_reason_and_without_what_was_not_measured():
    fell = {**ROW, "taken": False, "reason": "x" * 5000, "ms": None, "speedup": None,
            "route": "", "figures": {}}  # fmt: skip
    (row,) = published({**REPORT, "rows": [fell]})["candidates"]
    assert set(row) == {"backend", "precision", "taken", "reason"}
    assert len(row["reason"]) == MAX_REASON


def test_a_long_ladder_is_cut():
    assert len(published({**REPORT, "rows": [ROW] * 100})["candidates"]) == MAX_CANDIDATES


@pytest.mark.parametrize("key", sorted(REPORT))
def test_an_older_report_that_lacks_something_is_told_without_it(key):
    published({k: v for k, v in REPORT.items() if k != key})
