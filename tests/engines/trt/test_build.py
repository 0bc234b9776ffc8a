"""One build: what TensorRT is told, and what becomes of its refusals."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines import calibcache
from engines.errors import BuildError, CalibrationError
from engines.trt import routes
from engines.trt.board import Board
from engines.trt.build import GIB, Ranges, build
from engines.trt.order import Order
from engines.trt.shortage import BuildMemoryError
from tests.engines.graphs import convolution
from tests.fakes.cudaport import DESKTOP, ORIN_NANO
from tests.fakes.tensorrt import planfile
from tests.fakes.tensorrt.release import VERSIONS
from tests.fakes.trtorders import OPEN, api, content, named, order, quantised

MINI = Board("Fake Nano", "8.7", 4, True, 4 * GIB, "12.6")


def made(version, what, model=None, *, board=DESKTOP, free=8 * GIB, ranges=None, tell=None):
    """Build; gives the plan's header and the figures."""
    told = []
    plan, figures = build(
        api(version),
        what,
        model or content(what.route),
        board,
        free,
        ranges=ranges,
        tell=tell or told.append,
    )
    return planfile.read(plan)[0], figures


def cache(version):
    return Ranges(cache=calibcache.encode({"images": 3.0, "conv": 9.0}, version))


@pytest.mark.parametrize("version", VERSIONS)
def test_dynamic_batch_gets_a_profile(version):
    route = routes.FP32 if version != VERSIONS[-1] else routes.FP32_STRONG
    model = convolution(batch="n").SerializeToString()
    header, _ = made(version, order(route, OPEN), model)
    assert header["profile"]["images"] == [list(shape) for shape in OPEN]


def test_profile_of_fixed_shapes_is_not_needed():
    header, _ = made("10.3.0", order(routes.FP32))
    assert header["profile"]["images"] == [[1, 3, 8, 8]] * 3


def test_input_without_shapes_is_refused():
    with pytest.raises(BuildError, match="no shapes are known for the inputs images"):
        made("10.3.0", Order(routes.FP32, {"other": OPEN}), content(routes.FP32))


def test_profile_that_does_not_fit_the_graph_is_refused():
    wrong = ((1, 3, 9, 9), (1, 3, 9, 9), (1, 3, 9, 9))
    model = convolution(batch="n").SerializeToString()
    with pytest.raises(BuildError, match="Profile of images does not fit"):
        made("10.3.0", order(routes.FP32, wrong), model)


def test_fp32_is_really_fp32():
    assert "TF32" not in made("10.3.0", order(routes.FP32))[0]["flags"]
    assert "TF32" in made("10.3.0", order(routes.FP16_FLAG))[0]["flags"]


def test_layers_are_told_in_detail():
    assert made("8.6.1", order(routes.FP32))[0]["verbosity"] == "DETAILED"


@pytest.mark.parametrize(
    ("board", "free", "workspace", "tactic", "level", "streams"),
    [
        (DESKTOP, 20 * GIB, GIB, None, 3, -1),
        (DESKTOP, GIB, GIB // 4, None, 3, -1),
        (ORIN_NANO, 2 * GIB, GIB // 2, 4 * GIB, 3, 0),
        (MINI, 2 * GIB, GIB // 2, 2 * GIB, 2, 0),
    ],
)
def test_limits_follow_the_board(board, free, workspace, tactic, level, streams):
    header, figures = made("10.3.0", order(routes.FP32), board=board, free=free)
    assert header["pools"] == {"WORKSPACE": workspace} | ({"TACTIC_DRAM": tactic} if tactic else {})
    assert (header["level"], header["aux_streams"]) == (level, streams)
    assert figures["workspace_bytes"] == workspace


def test_limits_that_are_set_are_taken():
    what = order(routes.FP32, workspace_bytes=123 << 20, level=5)
    header, _ = made("10.3.0", what, board=MINI)
    assert (header["pools"]["WORKSPACE"], header["level"]) == (123 << 20, 5)


@pytest.mark.parametrize("version", VERSIONS)
def test_refused_operator_is_named_with_its_node(version, monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "refuse-op:Conv")
    route = routes.FP32 if version != VERSIONS[-1] else routes.FP32_STRONG
    with pytest.raises(BuildError, match=r"node '/model/Conv' \(Conv\): No importer registered"):
        made(version, order(route))


def test_many_refusals_are_counted():
    model = named()
    del model.graph.node[-1]
    for number in range(7):
        model.graph.node.append(
            helper.make_node("Weird", ["conv"], [f"w{number}"], f"w{number}", domain="my.own")
        )
    model.graph.node.append(helper.make_node("Identity", ["conv"], ["output0"], "end"))
    with pytest.raises(BuildError, match=r"'w4' \(Weird\).*; and 2 more$"):
        made("10.3.0", order(routes.FP32), model.SerializeToString())


def test_damaged_model_is_a_build_error():
    with pytest.raises(BuildError, match="does not take the model: Failed to parse"):
        made("10.3.0", order(routes.FP32), b"\xff\xff\xff\xffnot onnx")


def test_bytes_go_into_a_cast_alone():
    model = convolution(TensorProto.UINT8)
    made("10.3.0", order(routes.FP32), model.SerializeToString())
    model.graph.node[0].CopyFrom(
        helper.make_node("Transpose", ["images"], ["t"], "first", perm=[0, 1, 2, 3])
    )
    model.graph.node.insert(1, helper.make_node("Cast", ["t"], ["f"], "cast", to=1))
    with pytest.raises(BuildError, match="'first' \\(Transpose\\): UINT8"):
        made("10.3.0", order(routes.FP32), model.SerializeToString())


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_quantised_graph_needs_the_flag_where_typing_is_weak(version):
    header, _ = made(version, order(routes.INT8_FLAGS))
    assert next(row for row in header["layers"] if row["Name"] == "conv")["TacticName"].startswith(
        "fake_int8"
    )
    with pytest.raises(BuildError, match="Q/DQ layers are present"):
        made(version, order(routes.FP32), content(routes.INT8_FLAGS))


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_strong_typing_takes_the_types_of_the_graph(version):
    header, _ = made(version, order(routes.FP16_STRONG))
    assert header["strong"]
    assert (
        "fp16" in header["layers"][0]["TacticName"] or "half" in header["layers"][0]["TacticName"]
    )
    assert not {"FP16", "INT8"} & set(header["flags"])


def test_zero_point_is_refused_by_the_parser_with_its_node():
    # TensorRT#2774: the rule checker sees it first; this is what stands behind it.
    model = quantised(zero=3).SerializeToString()
    with pytest.raises(BuildError, match=r"node 'q' \(QuantizeLinear\): Non-zero zero point"):
        made("10.3.0", order(routes.INT8_FLAGS), model)


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_cache_route_never_asks_for_pictures(version):
    header, figures = made(version, order(routes.INT8_CACHE), ranges=cache(version))
    assert figures["calibration_batches"] == 0
    assert {row["TacticName"] for row in header["layers"]} >= {"fake_int8_conv"}


def test_layers_that_stay_float_are_pinned_where_the_graph_cannot_say_so():
    what = order(routes.INT8_CACHE, float_nodes=("/model/Conv", "nobody"))
    header, figures = made("8.6.1", what, ranges=cache("8.6.1"))
    assert figures["pinned"] == 1
    assert {row["TacticName"] for row in header["layers"]} == {"fake_half_conv"}


def test_cache_of_another_version_fails_before_the_build():
    # TensorRT#1378: the library would skip it without a word.
    with pytest.raises(CalibrationError, match="TRT-100300"):
        made("8.6.1", order(routes.INT8_CACHE), ranges=cache("10.3.0"))


class Upload:
    """Keeps every batch alive and gives its address."""

    def __init__(self):
        self.kept = []

    def __call__(self, batch):
        self.kept.append(np.ascontiguousarray(batch))
        return self.kept[-1].ctypes.data


def batches(*values):
    return Ranges(
        batches=iter([np.full((1, 3, 8, 8), value, np.float32) for value in values]),
        upload=Upload(),
    )


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_pictures_route_uses_every_batch(version):
    _, figures = made(version, order(routes.INT8_PICTURES), ranges=batches(1, 2, 3))
    assert figures["calibration_batches"] == 3


def test_bad_batch_fails_the_build_and_never_shortens_the_calibration():
    # The bindings take an exception as the end of the data, and TensorRT would build from one.
    with pytest.raises(CalibrationError, match="batch 1 holds values that are not finite"):
        made("8.6.1", order(routes.INT8_PICTURES), ranges=batches(1, np.nan, 3))


def test_no_pictures_at_all_is_a_build_error():
    with pytest.raises(BuildError, match="no scaling factors"):
        made("8.6.1", order(routes.INT8_PICTURES), ranges=batches())


def test_dla_needs_a_core(monkeypatch):
    what = order(routes.DLA_FP16_FLAG, dla_core=1)
    with pytest.raises(BuildError, match=r"no DLA core 1: TensorRT 10\.3\.0 finds 0"):
        made("10.3.0", what)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "dla:2")
    header, _ = made("10.3.0", what)
    assert header["dla"]
    assert "GPU_FALLBACK" in header["flags"]


def test_dla_takes_a_clean_graph_with_a_cache(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "dla:1")
    what = order(routes.DLA_INT8_CACHE, dla_core=0)
    header, _ = made("8.6.1", what, ranges=cache("8.6.1"))
    assert header["dla"]
    with pytest.raises(BuildError, match="DLA does not support Q/DQ"):
        made("8.6.1", what, content(routes.INT8_FLAGS), ranges=cache("8.6.1"))


def test_parser_adjusts_a_typed_graph_for_the_dla(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "dla:1")
    header, _ = made("11.4.0.106", order(routes.DLA_FP16_STRONG, dla_core=0))
    assert header["dla"]


def test_builder_that_returns_nothing_is_an_error_with_its_log(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "build-none:all")
    with pytest.raises(BuildError, match=r"built nothing by 'fp32': .*injected"):
        made("10.3.0", order(routes.FP32))


def test_memory_that_is_short_is_told_apart(monkeypatch):
    # TensorRT#3355: 2 to 8 GB boards; another route would need as much.
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "out-of-memory:build")
    with pytest.raises(BuildMemoryError, match=r"workspace_mb lower.*out of memory"):
        made("10.3.0", order(routes.FP32))


@pytest.mark.parametrize("version", VERSIONS)
def test_progress_is_told_where_the_release_tells_it(version):
    told = []
    route = routes.FP32 if version != VERSIONS[-1] else routes.FP32_STRONG
    made(version, order(route), tell=told.append)
    steps = [(p.done, p.total) for p in told if p.step == "building: Building"]
    assert steps == ([] if version == "8.6.1" else [(1, 4), (2, 4), (3, 4), (4, 4)])
    assert [p.step for p in told[:2]] == ["parsing", "building"]


def test_exception_in_a_progress_callback_ends_the_build_and_is_raised():
    def tell(progress):
        if progress.done == 2:
            raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        made("10.3.0", order(routes.FP32), tell=tell)


def test_library_that_does_not_start_is_a_build_error(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "no-driver")
    with pytest.raises(BuildError, match="could not start its Builder"):
        made("10.3.0", order(routes.FP32))


@pytest.mark.parametrize("route", list(routes.ROUTES.values()), ids=lambda r: r.name)
def test_orders_survive_the_way_to_another_process(route, tmp_path):
    what = order(route, OPEN, float_nodes=("a", "b"), level=2, timing=tmp_path / "x")
    assert Order.from_json(json.loads(json.dumps(what.to_json()))) == what
