"""TensorRT as a backend: routes fall with reasons; in real child processes where it counts."""

import importlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.backend import Attempt, Options, Recipe, RunOptions, TensorRtOptions
from engines.errors import BackendError, BuildError, CalibrationError, InferenceError, PlanError
from engines.source import Source
from engines.trt import api as api_module
from engines.trt import backend
from engines.trt.backend import System, TensorRtBackend, offers
from engines.trt.board import Board
from tests.engines.graphs import SIZE, convolution, info
from tests.fakes.cudaport import DESKTOP, ORIN_NANO, HostPort
from tests.fakes.tensorrt import planfile
from tests.fakes.trtorders import api, build_here

FAKES = Path(__file__).parents[2] / "fakes"


class Pictures:
    """Implements `engines.images.Images`."""

    digest = "sha256:00"

    def __len__(self):
        return 6

    def __iter__(self):
        rng = np.random.default_rng(1)
        yield from rng.integers(0, 255, (6, SIZE, SIZE, 3), np.uint8)


def two_convolutions(batch="n"):
    """images -> conv a -> relu -> conv b -> output0; named nodes."""
    rng = np.random.default_rng(0)
    weights = {
        "wa": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "wb": rng.standard_normal((4, 8, 3, 3)).astype(np.float32) / 8,
    }
    nodes = [
        helper.make_node("Conv", ["images", "wa"], ["a"], "/a/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"], "/a/Relu"),
        helper.make_node("Conv", ["r", "wb"], ["output0"], "/b/Conv", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 4, SIZE, SIZE])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def source(pictures=True, model=None):
    model = model or two_convolutions()
    return Source(model, info(max_batch=None), Pictures() if pictures else None, method="max")


def options(**changes):
    return Options(RunOptions(batch=4), TensorRtOptions(timeout_s=60.0) if not changes else
                   TensorRtOptions(**{"timeout_s": 60.0, **changes}))  # fmt: skip


@pytest.fixture
def use(monkeypatch):
    """Make a release the system's, here and in child processes."""

    def choose(version, board=DESKTOP, *, child=False):
        port = HostPort(board)
        made = System(api(version), port)
        monkeypatch.syspath_prepend(str(FAKES))
        monkeypatch.setenv("VIGIA_FAKE_TENSORRT", version)
        monkeypatch.setattr(backend, "system", lambda: made)
        if not child:
            monkeypatch.setattr(backend, "build_in_process", build_here)
        return port

    return choose


def build(precision, told=None, *, taken=None, float_nodes=frozenset(), **changes):
    told = [] if told is None else told
    return TensorRtBackend().build(
        taken or source(), Recipe(precision, float_nodes), options(**changes), told.append
    )


def header(product):
    return planfile.read(product.blob)[0]


def test_first_route_that_builds_is_taken(use):
    use("10.3.0", child=True)
    told = []
    product = build("int8", told)
    assert product.route == "strong fp16 q/dq"
    assert product.attempts == (Attempt("strong fp16 q/dq"),)
    assert product.facts["plan_bytes"] == len(product.blob)
    assert "building: strong fp16 q/dq" in [p.step for p in told]
    assert any(p.step == "building: Building" and (p.done, p.total) == (4, 4) for p in told)


@pytest.mark.parametrize(
    ("version", "fault", "route"),
    [
        # TensorRT#4832: strongly typed Q/DQ fails on Orin with 10.16; float32 scales do build.
        ("10.16.1.11", "strong-qdq", "q/dq with int8 and fp16 flags"),
        ("10.3.0", "build-none:strong", "q/dq with int8 and fp16 flags"),
        ("8.6.1", "build-none:weak", "int8 flag with calibration cache"),
    ],
)
def test_route_that_falls_is_recorded_and_the_next_is_tried(
    use, monkeypatch, version, fault, route
):
    use(version, child=True)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", fault)
    product = build("int8")
    assert product.route == route
    fallen, taken = product.attempts
    assert "myelin" in fallen.reason or "injected" in fallen.reason
    assert taken == Attempt(route)


def test_precision_that_no_route_reaches_is_an_error_that_names_each(use, monkeypatch):
    use("10.3.0")
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "build-none:all")
    with pytest.raises(BuildError) as caught:
        build("fp16")
    assert "no fp16 engine: strong fp16: " in str(caught.value)
    assert "; fp16 flag: " in str(caught.value)


def test_calibrator_is_not_tried_on_a_gpu_of_10(use, monkeypatch):
    # TensorRT#4797: it dies there; the way to int8 is Q/DQ.
    use("10.3.0")
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "calibrated")
    assert build("int8").route == "strong fp16 q/dq"


def test_calibrator_that_dies_on_a_dla_ends_in_an_error_with_the_reason(use, monkeypatch):
    use("10.3.0")
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "calibrated,dla:1")
    with pytest.raises(BuildError, match="region should have been removed"):
        build("int8", dla_core=0)


def test_short_memory_ends_the_ladder(use, monkeypatch):
    use("10.3.0", child=True)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "kill")
    with pytest.raises(BuildError) as caught:
        build("int8")
    assert str(caught.value).count("memory ran out") == 1
    assert "flags" not in str(caught.value)


def test_time_is_for_all_routes_together(use, monkeypatch):
    use("8.6.1", child=True)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "hang")
    with pytest.raises(BuildError) as caught:
        build("int8", timeout_s=2.0)
    assert str(caught.value).count("longer than 2 s") == 1


def test_int8_without_pictures_says_what_to_set(use):
    use("10.3.0")
    with pytest.raises(CalibrationError, match=r"quantize\.calibration"):
        build("int8", taken=source(pictures=False))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_floating_point_needs_no_pictures(use, precision):
    use("10.3.0")
    assert build(precision, taken=source(pictures=False)).blob


def test_quantised_graph_that_would_be_refused_never_reaches_the_builder(use, monkeypatch):
    use("10.3.0")
    monkeypatch.setattr(backend, "violations", lambda model: ["QuantizeLinear 'q': no"])
    with pytest.raises(BuildError, match="TensorRT would refuse the graph: QuantizeLinear 'q'"):
        build("int8")


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_graphs_that_are_written_for_tensorrt_pass_its_parser(use, version):
    # TensorRT#2774: no zero points; #4698: every scale above 0.
    use(version)
    layers = {row["Name"]: row["TacticName"] for row in header(build("int8"))["layers"]}
    assert layers["/a/Conv"] == "fake_int8_conv"


def test_layers_that_stay_float_do(use):
    use("10.3.0")
    product = build("int8", float_nodes=frozenset({"/b/Conv"}))
    layers = {row["Name"]: row["TacticName"] for row in header(product)["layers"]}
    assert (layers["/a/Conv"], layers["/b/Conv"]) == ("fake_int8_conv", "fake_half_conv")


def test_batch_that_is_open_gets_a_profile_up_to_the_largest(use):
    use("10.3.0")
    (shapes,) = header(build("fp16"))["profile"].values()
    assert shapes == [[1, SIZE, SIZE, 3], [4, SIZE, SIZE, 3], [4, SIZE, SIZE, 3]]


def test_fixed_batch_stays_fixed(use):
    use("10.3.0")
    model = two_convolutions(batch=2)
    taken = Source(model, info(max_batch=2), None)
    (shapes,) = header(build("fp16", taken=taken))["profile"].values()
    assert shapes == [[2, SIZE, SIZE, 3]] * 3


def test_input_that_is_open_in_its_size_is_refused(use):
    use("10.3.0")
    taken = source()
    graph = onnx.ModelProto()
    graph.CopyFrom(taken.graph("device"))
    dim = graph.graph.input[0].type.tensor_type.shape.dim[1]
    dim.Clear()
    dim.dim_param = "height"
    taken.graph = lambda style: graph
    with pytest.raises(BuildError, match="set input_width and input_height"):
        build("fp32", taken=taken)


def test_cuda_preprocessing_takes_the_models_own_input(use):
    use("10.3.0")
    (name,) = header(build("fp16", preprocess="cuda"))["profile"]
    assert name == "images"


def test_dla_builds_one_batch_with_a_cache(use, monkeypatch):
    use("8.6.1", ORIN_NANO)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "dla:2")
    product = build("int8", dla_core=1)
    assert product.route == "dla: int8 flag with calibration cache"
    (shapes,) = header(product)["profile"].values()
    assert shapes == [[4, SIZE, SIZE, 3]] * 3
    assert header(product)["dla"]


def test_dla_that_is_not_there_is_told(use):
    use("10.3.0")
    with pytest.raises(BuildError, match="no DLA core 0: TensorRT 10"):
        build("fp16", dla_core=0)


def test_dla_does_not_compute_in_fp32(use):
    use("8.6.1")
    with pytest.raises(BuildError, match=r"leave tensorrt\.dla_core away"):
        build("fp32", dla_core=0)


def test_timing_cache_is_kept_per_system(use, tmp_path):
    use("10.3.0", child=True)
    assert build("fp16", timing_folder=tmp_path).facts["timing_cache"] == "empty"
    assert build("fp16", timing_folder=tmp_path).facts["timing_cache"] == "loaded"
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_model_is_named_by_the_parser(use, monkeypatch):
    use("10.3.0")
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "refuse-op:Relu")
    with pytest.raises(BuildError, match=r"node '/a/Relu' \(Relu\): No importer registered"):
        build("fp16")


def test_engine_that_computes_in_another_precision_says_so(use, monkeypatch):
    """The selection refuses it: asked for one precision, got another."""
    use("10.3.0")
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "precision:FLOAT")
    product = build("fp16")
    engine = TensorRtBackend().load(product.blob, info(max_batch=None), options())
    assert engine.precision == "fp32"
    engine.close()


def test_plan_of_another_release_is_refused(use):
    use("10.3.0")
    product = build("fp16")
    use("10.16.1.11")
    with pytest.raises(PlanError):
        TensorRtBackend().load(product.blob, info(max_batch=None), options())


def test_batch_outside_the_profile_is_refused(use):
    use("10.3.0")
    engine = TensorRtBackend().load(build("fp16").blob, info(max_batch=None), options())
    with pytest.raises(InferenceError, match=r"batch 5 is outside 1\.\.4"):
        engine.create_context(5)
    engine.close()


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("5.2", ("fp32",)),
        ("5.3", ("fp32", "fp16")),
        ("6.1", ("fp32", "int8")),
        ("6.2", ("fp32", "fp16")),
        ("7.2", ("fp32", "fp16", "int8")),
        ("8.7", ("fp32", "fp16", "int8")),
        ("11.0", ("fp32", "fp16", "int8")),
    ],
)
def test_precisions_follow_the_gpu(capability, expected):
    assert offers(capability) == expected


def test_fingerprint_changes_with_everything_a_plan_depends_on(use):
    prints = []
    boards = [
        ORIN_NANO,
        Board("Fake Orin", "8.7", 16, True, 8 << 30, "12.6"),
        Board("Fake Orin", "8.7", 8, True, 16 << 30, "12.6"),
        Board("Fake Orin", "8.7", 8, True, 8 << 30, "13.0"),
        Board("Fake Orin", "11.0", 8, True, 8 << 30, "12.6"),
        Board("Fake Orin", "8.7", 8, False, 8 << 30, "12.6"),
    ]
    for version in ("10.3.0", "10.16.1.11"):
        for board in boards:
            use(version, board)
            prints.append(tuple(sorted(TensorRtBackend().fingerprint().items())))
    assert len(set(prints)) == len(prints)
    use("10.3.0", Board("Fake Orin", "8.7", 8, True, (8 << 30) - (100 << 20), "12.6"))
    # The kernel keeps a little more or less for itself; that makes no other plan.
    assert tuple(sorted(TensorRtBackend().fingerprint().items())) == prints[0]


@pytest.fixture
def alone():
    """Nothing opened before, nothing left open."""
    backend.system.cache_clear()
    api_module.open_api.cache_clear()
    yield
    backend.system.cache_clear()
    api_module.open_api.cache_clear()


@pytest.mark.usefixtures("alone")
def test_machine_without_tensorrt_says_what_to_install(monkeypatch):
    def fail(name):
        raise ImportError("No module named 'tensorrt'")

    monkeypatch.setattr(api_module.importlib, "import_module", fail)
    assert "python3-libnvinfer" in TensorRtBackend().why_not()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("No module named 'pycuda'"), "pip install pycuda"),
        (ImportError("libcuda.so.1: cannot open shared object file"), "NVIDIA driver"),
        (InferenceError("no CUDA-capable device is detected"), "the GPU cannot be used"),
    ],
)
def test_machine_without_a_gpu_says_what_is_missing(monkeypatch, error, words):
    class Broken:
        def open_port(self):
            raise error

    monkeypatch.setattr(api_module, "import_tensorrt", lambda: api("10.3.0").module)
    monkeypatch.setitem(sys.modules, "engines.trt.cudapycuda", Broken())
    assert words in TensorRtBackend().why_not()
    with pytest.raises(BackendError):
        backend.system()


@pytest.mark.usefixtures("alone")
def test_broken_release_is_refused_with_its_reason(monkeypatch):
    module = type("Module", (), {"__version__": "10.2.0"})
    monkeypatch.setattr(importlib, "import_module", lambda name: module)
    assert "Windows" in TensorRtBackend().why_not()


def test_convolution_with_a_single_layer_builds_too(use):
    use("11.4.0.106")
    taken = Source(convolution(batch="n"), info(max_batch=None), Pictures(), method="max")
    assert build("int8", taken=taken).route == "strong fp16 q/dq"
