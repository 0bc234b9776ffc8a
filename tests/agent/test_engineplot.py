"""The drawing of what was measured."""

import sys

import pytest

pytest.importorskip("matplotlib")

from agent.enginecandidates import Candidate
from agent.enginecourse import Row, Setting
from agent.engineplot import draw
from agent.errors import ConfigError
from engines.race import Timing

TIMES = {"preprocess": Timing(1, 2, 3), "infer": Timing(5, 6, 7), "decode": Timing(1, 1, 1)}


def row(candidate, per_s=100.0, **setting):
    where = {"arrangement": "latency", "batch": 1, "width": 320, "height": 320, **setting}
    return Row(
        candidate,
        Setting(**where),
        candidate.precision,
        "route",
        1,
        TIMES,
        Timing(7, 9, 11),
        per_s,
        1.0,
    )


ORT, VINO = Candidate("onnxruntime", "fp32"), Candidate("openvino", "bf16")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_written(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    draw([row(ORT), row(VINO, 250)], "a model", path)
    assert path.stat().st_size > 5000


def test_batches_and_sizes_get_drawings_of_their_own(tmp_path):
    one, many = tmp_path / "one.svg", tmp_path / "many.svg"
    draw([row(ORT)], "a model", one)
    rows = [
        row(c, batch=b, width=s, height=s) for s in (320, 640) for b in (1, 2) for c in (ORT, VINO)
    ]
    draw(rows, "a model", many)
    assert many.read_text().count('id="axes_') == 4
    assert one.read_text().count('id="axes_') == 2


def test_what_failed_is_left_out(tmp_path):
    failed = Row(VINO, Setting("latency", 1, 320, 320), reason="no")
    draw([row(ORT), failed], "a model", tmp_path / "p.png")
    with pytest.raises(ConfigError, match="nothing was measured"):
        draw([failed], "a model", tmp_path / "q.png")


@pytest.mark.parametrize("name", ["none/p.png", "p.docx"])
def test_a_file_that_cannot_be_written_is_a_mistake_of_the_caller(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be written"):
        draw([row(ORT)], "a model", tmp_path / name)


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'vigia-agent\[plot\]'"):
        draw([row(ORT)], "a model", tmp_path / "p.png")


def test_no_state_is_left_in_the_library(tmp_path):
    draw([row(ORT)], "a model", tmp_path / "p.png")
    assert "matplotlib.pyplot" not in sys.modules
