"""Bench and profile of a TensorRT engine, on the fake module and a port in the host's memory."""

import time

import numpy as np
import pytest

from agent.config import ModelConfig
from agent.enginecandidates import Candidate, Workshop
from agent.enginecourse import STAGES, Setting, compare
from agent.engineprofiler import run as profile
from agent.vision.decode import Decoder, PostprocessSettings
from engines.backend import Product
from engines.ortbackend import OrtBackend
from engines.trt import backend, routes, run
from engines.trt.build import build
from engines.trt.order import Order
from tests.fakes.cudaport import HostPort
from tests.fakes.trtorders import api
from tests.vectors.models import make_model

SIDE = 32


class Event:
    """Implements `engines.trt.cuda.Event` by the host's clock."""

    def record(self, stream):
        self.at = time.perf_counter()

    def synchronize(self):
        """Everything has run when it was enqueued."""

    def elapsed_ms(self, since):
        return (self.at - since.at) * 1e3

    def close(self):
        """Nothing is held."""


class TimedPort(HostPort):
    """A port that can be timed."""

    def event(self):
        return Event()


class InProcess:
    """Implements `engines.backend.Backend`: TensorRT's own build and load, without a child."""

    name = "tensorrt"

    def __init__(self, system):
        self.system = system

    def why_not(self):
        return ""

    def offers(self):
        return ("fp32",)

    def fingerprint(self):
        return {}

    def build(self, source, recipe, options, tell):
        shape = (options.run.batch, SIDE, SIDE, 3)
        model = source.graph("device")
        order = Order(routes.FP32, {model.graph.input[0].name: (shape,) * 3})
        port = self.system.cuda
        content = model.SerializeToString()
        plan, _ = build(self.system.api, order, content, port.board, 8 << 30, tell=lambda _: None)
        return Product(plan, "fp32")

    def load(self, blob, info, options):
        return run.load(self.system.api, self.system.cuda, blob, info, options)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    system = backend.System(api("10.3.0"), TimedPort())
    monkeypatch.setattr(backend, "system", lambda: system)
    path = make_model(tmp_path / "m.onnx", nc=2, size=SIDE)
    yield Workshop(ModelConfig(path=path, threads=1), [OrtBackend(), InProcess(system)])
    assert system.cuda.live == 0


def test_layers_are_timed_by_tensorrts_own_profiler(workshop):
    found = profile(workshop, "tensorrt", "fp32", batch=1, runs=3)
    assert (found.backend, found.precision) == ("tensorrt", "fp32")
    assert found.layers
    assert found.total_ms > 0
    assert [layer.ms for layer in found.layers] == sorted(
        (layer.ms for layer in found.layers), reverse=True
    )


def test_copies_are_stages_of_their_own(workshop):
    candidate = Candidate("tensorrt", "fp32")
    _, engine = workshop.build(candidate, workshop.options.run)
    try:
        (row,) = compare(
            {candidate: engine},
            workshop.info,
            Decoder(workshop.info, PostprocessSettings()),
            [np.zeros((24, 32, 3), np.uint8)],
            Setting("latency", 1, SIDE, SIDE),
            0.05,
        )
    finally:
        engine.close()
    assert tuple(row.stages) == STAGES
    assert row.ratio is None
