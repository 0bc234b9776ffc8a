"""One face for five releases: what they have, how they fail, what is said of it."""

import numpy as np
import pytest

from engines.errors import BackendError, BuildError, InferenceError, PlanError
from engines.trt import api as api_module
from engines.trt.api import TrtApi, import_advice, import_tensorrt, version_refusal
from engines.trt.logger import KEPT_LINES, LogLines
from tests.engines.graphs import convolution
from tests.fakes.tensorrt.release import VERSIONS, make


@pytest.fixture(params=VERSIONS)
def api(request):
    return TrtApi(make(request.param))


def plan(api, model=None):
    module = api.module
    builder = api.started("Builder")
    flags = module.NetworkDefinitionCreationFlag
    explicit = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    network = builder.create_network(explicit)
    parser = module.OnnxParser(network, api.logger)
    assert parser.parse((model or convolution()).SerializeToString())
    return bytes(builder.build_serialized_network(network, builder.create_builder_config()))


@pytest.mark.parametrize(
    ("version", "weak", "strong", "calibrator"),
    [
        ("8.6.1", True, False, True),
        ("10.3.0", True, True, True),
        ("10.13.3.9", True, True, True),
        ("10.16.1.11", True, True, True),
        ("11.4.0.106", False, True, False),
    ],
)
def test_capabilities_are_read_from_the_module(version, weak, strong, calibrator):
    api = TrtApi(make(version))
    assert (api.weak_typing, api.strong_typing, api.implicit_int8) == (weak, strong, calibrator)
    assert api.adjusts_for_dla is version.startswith(("10.16", "11"))


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("8.4.1.5", "too old"),
        ("8.2.1", "too old"),
        ("7.1.3", "too old"),
        ("10.2.0", "Windows"),
        ("10.2.0.19", "Windows"),
    ],
)
def test_releases_that_cannot_work_are_refused(version, words):
    assert words in version_refusal(version)


@pytest.mark.parametrize("version", [*VERSIONS, "8.5.2.2", "10.2.1", "12.0"])
def test_other_releases_are_not(version):
    assert version_refusal(version) == ""


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("No module named 'tensorrt'", "--system-site-packages"),
        ("libnvdla_compiler.so: cannot open shared object file", "older JetPack"),
        ("libcuda.so.1: cannot open shared object file", "driver"),
        ("libnvinfer.so.10: cannot open shared object file", "tensorrt package"),
        ("tensorrt.so: undefined symbol: createInferBuilder_INTERNAL", "one package source"),
        ("who knows", "reinstall"),
    ],
)
def test_import_error_says_what_to_install(text, advice, monkeypatch):
    def fail(name):
        raise ImportError(text)

    monkeypatch.setattr(api_module.importlib, "import_module", fail)
    with pytest.raises(BackendError, match="TensorRT cannot be imported") as caught:
        import_tensorrt()
    assert advice in str(caught.value)
    assert import_advice(text) in str(caught.value)


def test_denied_release_is_refused_when_it_is_imported(monkeypatch):
    class Module:
        __version__ = "10.2.0"

    monkeypatch.setattr(api_module.importlib, "import_module", lambda name: Module)
    with pytest.raises(BackendError, match="install another"):
        import_tensorrt()


@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_library_that_does_not_start_is_an_error_with_its_log(api, kind, monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "no-driver")
    with pytest.raises(BackendError, match=r"could not start.*CUDA initialization failure"):
        api.started(kind)


def test_plan_goes_round(api):
    engine = api.deserialize(api.started("Runtime"), plan(api))
    image, output = api.io_tensors(engine)
    assert (image.name, image.shape, image.is_input) == ("images", (1, 3, 8, 8), True)
    assert (output.dtype, output.is_input) == (np.dtype(np.float32), False)
    context = api.create_context(engine)
    source, target = np.ones((1, 3, 8, 8), np.float32), np.zeros((1, 4, 8, 8), np.float32)
    api.set_input_shape(context, "images", (1, 3, 8, 8))
    api.set_address(context, "images", source.ctypes.data)
    api.set_address(context, "output0", target.ctypes.data)
    assert api.missing_shapes(context) == []
    assert api.output_shape(context, "output0") == (1, 4, 8, 8)
    api.enqueue(context, 1)
    assert target.any()


def test_open_shapes_are_asked_for(api):
    module = api.module
    builder = api.started("Builder")
    flags = module.NetworkDefinitionCreationFlag
    network = builder.create_network(
        1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    )
    parser = module.OnnxParser(network, api.logger)
    assert parser.parse(convolution(batch="n").SerializeToString())
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    config.add_optimization_profile(profile)
    content = bytes(builder.build_serialized_network(network, config))
    engine = api.deserialize(api.started("Runtime"), content)
    assert api.profile_shapes(engine, "images")[2] == (4, 3, 8, 8)
    context = api.create_context(engine)
    assert api.missing_shapes(context) == ["images"]
    with pytest.raises(InferenceError, match=r"outside the profile.*1, 3, 8, 8"):
        api.set_input_shape(context, "images", (5, 3, 8, 8))
    api.set_input_shape(context, "images", (3, 3, 8, 8))
    assert api.output_shape(context, "output0")[0] == 3


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_damaged_plan_is_a_plan_error(api, damage):
    content = plan(api)
    bad = {
        "truncated": content[:-100],
        "flipped": content[:200] + bytes([content[200] ^ 1]) + content[201:],
        "empty": b"",
        "foreign": b"\x7fELF" * 64,
    }[damage]
    with pytest.raises(PlanError, match="does not match"):
        api.deserialize(api.started("Runtime"), bad)


def test_plan_of_another_release_is_a_plan_error():
    old, new = TrtApi(make("10.3.0")), TrtApi(make("10.16.1.11"))
    with pytest.raises(PlanError, match="Version tag"):
        new.deserialize(new.started("Runtime"), plan(old))


def test_plan_of_another_gpu_is_a_plan_error(api, monkeypatch):
    content = plan(api)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "sm:75")
    with pytest.raises(PlanError, match="incompatible device"):
        api.deserialize(api.started("Runtime"), content)


def test_short_memory_is_not_the_plans_fault(api, monkeypatch):
    content = plan(api)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "out-of-memory:load")
    with pytest.raises(BackendError, match="out of memory"):
        api.deserialize(api.started("Runtime"), content)


def test_context_that_cannot_be_made_is_an_error(api, monkeypatch):
    engine = api.deserialize(api.started("Runtime"), plan(api))
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "context-none")
    with pytest.raises(InferenceError, match="execution context: it logged nothing"):
        api.create_context(engine)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "out-of-memory:context")
    with pytest.raises(InferenceError, match="OutOfMemory"):
        api.create_context(engine)


def test_enqueue_that_fails_and_unknown_tensors_are_errors(api, monkeypatch):
    engine = api.deserialize(api.started("Runtime"), plan(api))
    context = api.create_context(engine)
    with pytest.raises(InferenceError, match="address of 'nobody'"):
        api.set_address(context, "nobody", 1 << 20)
    with pytest.raises(InferenceError, match="Address is not set"):
        api.enqueue(context, 1)


@pytest.mark.parametrize("name", ["BF16", "FP8", "INT4", "FP4", "E8M0"])
def test_types_that_numpy_has_not_are_refused_by_name(name):
    api = TrtApi(make("11.4.0.106"))
    with pytest.raises(BackendError, match=f"'x' is of type {name}"):
        api.dtype(api.module.DataType[name], "x")


def test_every_other_type_has_numpys(api):
    for kind in api.module.DataType:
        if kind.name not in {"BF16", "FP8", "INT4", "FP4", "E8M0"}:
            assert api.dtype(kind, "x").itemsize in {1, 2, 4, 8}


def test_failure_carries_only_what_was_logged_meanwhile(api):
    api.log.add("ERROR", "an old story")
    with pytest.raises(BuildError, match="did nothing: it logged nothing"):
        api.checked(BuildError, "did nothing", lambda: None)


def test_log_keeps_the_last_errors_and_no_more():
    told = []
    lines = LogLines(lambda severity, text: told.append(severity))
    for number in range(KEPT_LINES + 10):
        lines.add("ERROR", f"line {number}")
    lines.add("WARNING", "not an error")
    lines.add("INFO", "not an error either")
    lines.add("VERBOSE", "dropped")
    kept = lines.since(0)
    assert len(kept) == KEPT_LINES
    assert kept[-1] == f"line {KEPT_LINES + 9}"
    assert lines.since(KEPT_LINES + 8) == ["line 58", "line 59"]
    assert told[-2:] == ["WARNING", "INFO"]
