"""Times by layer and by stage, on contexts of their own."""

import gc

import numpy as np
import pytest

from engines.errors import InferenceError
from engines.trt import profile
from engines.trt.context import TrtContext
from tests.engines.trt.test_run import FRAME, api, loaded
from tests.fakes import libcuda

VERSION = "10.3.0"


@pytest.fixture
def port():
    libcuda.require()
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    driver = libcuda.load()
    before = driver.live()
    port = PycudaPort(0)
    yield port
    port.close()
    gc.collect()
    assert driver.live() == before


@pytest.fixture
def engine(port):
    engine = loaded(VERSION, port)
    yield engine
    engine.close()


def test_layers_slowest_first_with_what_the_inspector_knows(engine):
    rows = profile.layer_times(api(VERSION), engine, 2, 3)
    assert [row.ms for row in rows] == sorted((row.ms for row in rows), reverse=True)
    assert {row.name for row in rows} == {layer.name for layer in engine.facts.layers}
    assert "fp32" in {row.precision for row in rows}


def test_layer_that_the_inspector_does_not_know_keeps_its_time():
    row = profile._row("made up", [1.0, 3.0], None)
    assert (row.ms, row.precision, row.reformat) == (2.0, "", False)


def test_profiler_that_reports_nothing_is_an_error(engine, monkeypatch):
    monkeypatch.setattr(TrtContext, "watch", lambda *_: None)
    monkeypatch.setattr(TrtContext, "report", lambda *_: None)
    with pytest.raises(InferenceError, match="reported no layer"):
        profile.layer_times(api(VERSION), engine, 1, 1)


def test_serving_context_is_neither_watched_nor_waited_for(engine):
    serving = engine.create_context(1)
    serving.inputs["frames_bgr_u8"][...] = FRAME[:1]
    before = serving.infer()["output0"].copy()
    profile.layer_times(api(VERSION), engine, 1, 2)
    profile.stage_times(engine, 1, 2)
    assert serving._context.profiler is None
    np.testing.assert_array_equal(serving.infer()["output0"], before)
    serving.close()


@pytest.mark.parametrize("integrated", [True, False])
def test_stages_are_timed_and_input_read_in_place_costs_none(integrated):
    libcuda.require()
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    driver = libcuda.load()
    driver.integrated(integrated)
    port = PycudaPort(0)
    engine = loaded(VERSION, port)
    context = engine.create_context(1)
    assert len(context._copies_in) == (0 if integrated else 1)
    context.close()
    times = profile.stage_times(engine, 4, 3)
    assert len(times) == 3
    assert all(t.copy_in_ms >= 0 and t.compute_ms > 0 and t.copy_out_ms >= 0 for t in times)
    engine.close()
    port.close()
    driver.integrated(False)


def test_batch_outside_the_profile_is_told(engine):
    with pytest.raises(InferenceError, match="outside"):
        profile.stage_times(engine, 9, 1)
