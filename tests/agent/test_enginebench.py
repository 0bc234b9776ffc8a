"""That engines are measured side by side and the figures add up; never how fast anything is."""

import json
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.config import ModelConfig
from agent.enginebench import Sweep, arrangements, as_dict, numbers, sizes, sweep
from agent.enginecandidates import Candidate, Workshop
from agent.enginecourse import ROUNDS, STAGES, Setting, compare
from agent.errors import ConfigError
from agent.vision.decode import Decoder, PostprocessSettings
from engines.errors import InferenceError
from engines.ortbackend import OrtBackend
from tests.fakes.backend import FakeBackend
from tests.fakes.engine import FakeContext, FakeEngine
from tests.fakes.model import loaded
from tests.vectors.models import make_model

REFERENCE = Candidate("onnxruntime", "fp32")
OTHER = Candidate("openvino", "bf16")
SETTING = Setting("latency", 1, 32, 32)
PICTURES = [np.full((24, 32, 3), level, np.uint8) for level in (10, 200)]
INFO = loaded().info


def fake(function=None, lanes=1):
    return FakeEngine(
        function or (lambda images: np.zeros((len(images), 6, 8), np.float32)), lanes=lanes
    )


def run(engines, setting=SETTING, seconds=0.05):
    decoder = Decoder(INFO, PostprocessSettings())
    return compare(engines, INFO, decoder, PICTURES, setting, seconds)


def test_every_stage_and_the_rate_of_every_engine_is_measured():
    engines = {REFERENCE: fake(), OTHER: fake()}
    rows = run(engines)
    assert [row.candidate for row in rows] == [REFERENCE, OTHER]
    for row, engine in zip(rows, engines.values(), strict=True):
        assert list(row.stages) == ["preprocess", "infer", "decode"]
        assert row.per_s > 0
        parts = sum(timing.p50_ms for timing in row.stages.values())
        assert row.total.p50_ms == pytest.approx(parts, rel=0.5)
        assert row.total.p50_ms <= row.total.p95_ms <= row.total.p99_ms
        assert engine.open_contexts == 0
        assert not engine.closed
    assert rows[0].ratio == 1.0


def test_engines_take_turns():
    order = []

    def noted(name):
        def function(images):
            if order[-1:] != [name]:
                order.append(name)
            return np.zeros((len(images), 6, 8), np.float32)

        return function

    run({REFERENCE: fake(noted("a")), OTHER: fake(noted("b"))}, seconds=0.02)
    # The warm-up, then a lap of each in each round, whoever was last before going first or second.
    assert len(order) >= ROUNDS + 2


def test_a_batch_is_filled_and_counted_as_pictures():
    engine = fake()
    (row,) = run({REFERENCE: engine}, Setting("latency", 4, 32, 32))
    assert set(engine.batches) == {4}
    assert row.setting.batch == 4


def test_all_lanes_are_busy_for_throughput():
    threads = set()
    meeting = threading.Barrier(2)

    def function(images):
        own = threading.get_ident()
        if own != threading.main_thread().ident and len(threads) < 3 and own not in threads:
            threads.add(own)
            # Each lane waits for the other once: a thread that had ended could lend its number.
            meeting.wait(30)
        threads.add(own)
        return np.zeros((len(images), 6, 8), np.float32)

    (row,) = run({REFERENCE: fake(function, lanes=2)}, Setting("throughput", 1, 32, 32))
    assert len(threads - {threading.get_ident()}) >= 2
    assert row.lanes == 2


def test_an_engine_that_fails_at_once_or_later_is_a_row_with_a_reason():
    calls = []

    def breaks(images):
        calls.append(1)
        if len(calls) > 20:
            raise InferenceError("the device is lost")
        return np.zeros((len(images), 6, 8), np.float32)

    def broken(images):
        raise InferenceError("never worked")

    third = Candidate("tensorrt", "fp16")
    engines = {REFERENCE: fake(), OTHER: fake(breaks), third: fake(broken)}
    good, later, never = run(engines)
    assert (good.reason, later.reason, never.reason) == ("", "the device is lost", "never worked")
    assert good.per_s > 0
    assert all(engine.open_contexts == 0 for engine in engines.values())


def test_answers_that_cannot_be_read_are_a_reason():
    def nonsense(images):
        return np.full((len(images), 6, 8), np.nan, np.float32)

    (row,) = run({OTHER: fake(nonsense)})
    assert "NaN or infinite" in row.reason


class OtherDevice(FakeEngine):
    """An engine whose contexts time their own stages."""

    def create_context(self, batch):
        class Timed(FakeContext):
            def infer_timed(self):
                return 0.25, 1.5, 0.125

        return Timed(self, batch)


def test_a_device_that_times_its_own_stages_is_asked():
    engine = OtherDevice(lambda images: np.zeros((len(images), 6, 8), np.float32))
    (row,) = run({REFERENCE: engine})
    assert tuple(row.stages) == STAGES
    figures = {stage: timing.p50_ms for stage, timing in row.stages.items()}
    assert figures["input copy"] == 0.25
    assert figures["infer"] == 1.5
    assert figures["output copy"] == 0.125


@dataclass
class Bench:
    config: ModelConfig
    fake: FakeBackend

    def __call__(self, **wanted):
        return sweep(
            self.config,
            Sweep(seconds=0.02, **wanted),
            PICTURES,
            lambda config: Workshop(config, [OrtBackend(), self.fake]),
            lambda _: None,
        )


@pytest.fixture
def bench(tmp_path):
    path = make_model(tmp_path / "m.onnx", nc=2, size=32, batch="dynamic", dynamic_size=True)
    fake = FakeBackend("openvino", ("bf16", "fp16"), refuses=("fp16",), boxes=21)
    return Bench(ModelConfig(path=path, threads=1), fake)


def test_every_candidate_is_measured_in_every_setting(bench):
    rows = bench(batches=(1, 2), arrangements=("latency", "throughput"))
    assert [(row.setting.batch, row.setting.arrangement) for row in rows[::3]] == [
        (1, "latency"),
        (1, "throughput"),
        (2, "latency"),
        (2, "throughput"),
    ]
    assert [row.candidate.name for row in rows[:3]] == [
        "fp32 on onnxruntime",
        "bf16 on openvino",
        "fp16 on openvino",
    ]
    assert rows[2].reason == "openvino cannot build fp16"
    assert (rows[1].precision, rows[1].route) == ("bf16", "fake route")
    assert all(engine.closed for engine in bench.fake.engines)


def test_a_dynamic_model_is_measured_at_every_size(bench):
    rows = bench(sizes=((32, 32), (64, 96)), backends=("onnxruntime",))
    assert [(row.setting.width, row.setting.height) for row in rows] == [(32, 32), (64, 96)]


def test_a_size_that_cannot_be_is_said_before_anything_is_measured(bench):
    with pytest.raises(ConfigError, match="--size 50x50"):
        bench(sizes=((32, 32), (50, 50)))
    assert bench.fake.engines == []


def test_rows_are_json(bench):
    rows = [as_dict(row) for row in bench()]
    json.dumps(rows)
    assert rows[0]["ratio"] == 1.0
    assert set(rows[0]["stages_ms"]) == {"preprocess", "infer", "decode"}
    assert set(rows[0]["total_ms"]) == {"p50", "p95", "p99"}
    assert (rows[2]["reason"], rows[2]["total_ms"]) == ("openvino cannot build fp16", None)


@pytest.mark.parametrize("text", ["0", "a", "1,-2", "1.5", ""])
def test_batches_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="--batch"):
        numbers("--batch", text)


@pytest.mark.parametrize("text", ["a", "320x", "x320", "320x240x3", "-1", "3.2"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="--size"):
        sizes(text)


def test_options_are_read():
    assert numbers("--batch", " 4,1, 4 ") == (1, 4)
    assert sizes("320, 640x384,") == ((320, 320), (640, 384))
    assert sizes("") == ()
    assert arrangements("both") == ("latency", "throughput")
    with pytest.raises(ConfigError, match="latency, throughput or both"):
        arrangements("fast")


def test_the_command_measures_and_draws(tmp_path, monkeypatch):
    path = make_model(tmp_path / "m.onnx", nc=2, size=32, batch="dynamic")
    plot = tmp_path / "bench.png"
    arguments = ["engine", "bench", str(path), "--backend", "onnxruntime", "--seconds", "0.1"]
    done = CliRunner().invoke(app, [*arguments, "--batch", "1,2", "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    assert "32x32, batch 2, latency" in done.output
    assert "onnxruntime" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(app, [*arguments, "--json"])
    told = json.loads(done.stdout)
    assert {"governors", "power_mode", "threads", "clocks_mhz", "versions"} <= set(told["host"])
    assert told["rows"][0]["backend"] == "onnxruntime"
