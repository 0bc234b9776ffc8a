"""What a start of `vigia run` does not pay for: libraries that it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RUN = "import agent.cli, agent.commands.run, agent.daemon, agent.lastgood, agent.log"
"""As `vigia run` imports them."""

PLANS = """
from pathlib import Path
from agent.config import ModelConfig
from agent.plans import PlanRequest, Plans
config = ModelConfig(path="examples/conveyor/conveyor-n.onnx", backend="onnxruntime")
assert Plans(PlanRequest("main", config, True, Path("/nowhere"))).find() is None
"""


@pytest.mark.parametrize(
    ("code", "slow"),
    [
        # Of the page, of updates, of commands for people, of other engines, of building.
        (RUN, "uvicorn starlette prometheus_client"),
        (RUN, "tuf securesystemslib"),
        (RUN, "sqlalchemy matplotlib jsonschema"),
        (RUN, "openvino tensorrt pycuda"),
        (f"{RUN}{PLANS}", "openvino tensorrt pycuda"),
    ],
)
def test_a_start_imports_nothing_that_it_does_not_need(code, slow):
    look = f"{code}\nimport sys; print(sorted(set('{slow}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_a_start_imports_is_not_looked_through_for_garbage():
    code = (
        "import gc, typer\n"
        "from agent.commands.run import run\n"
        "rounds = []\n"
        "gc.callbacks.append(lambda phase, _: rounds.append(phase))\n"
        "try: run('/nowhere/agent.yaml')\n"
        "except Exception: print(len(rounds), gc.isenabled(), gc.get_freeze_count() > 10_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    rounds, enabled, frozen = done.stdout.split()
    assert int(rounds) < 10
    assert (enabled, frozen) == ("True", "True")
