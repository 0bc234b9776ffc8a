"""Five releases of TensorRT: every name we use, and a build, load and run on each.

The vectors hold, of the genuine bindings of each release, the names that the fake can do. The fake
has nothing else, so what runs on it uses no name that the release has not.
"""

import ast
import gc
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from engines.backend import Options, Recipe, RunOptions, TensorRtOptions
from engines.source import Source
from engines.trt import backend
from engines.trt.backend import System, TensorRtBackend, capabilities
from engines.trt.feed import normalised
from engines.trt.routes import routes
from tests.engines.graphs import SIZE, info
from tests.engines.trt.test_backend import FAKES, Pictures, two_convolutions
from tests.fakes.cudaport import ORIN_NANO, HostPort
from tests.fakes.tensorrt import callbacks, running
from tests.fakes.tensorrt.release import CLASSES, VERSIONS, make, vector
from tests.fakes.tensorrt.strict import accepts, parameters, public
from tests.fakes.trtorders import api, build_here

ENGINES = Path(__file__).parents[3] / "engines" / "trt"

V8, V10, V11 = VERSIONS[:1], VERSIONS[1:4], VERSIONS[4:]

# Names that some release has not -> releases that have it. Each stands behind a gate in our code;
# every other name that we use is in all five.
GATED = {
    # engines.trt.routes: only where the builder may choose precisions.
    "BuilderFlag.FP16": V8 + V10,
    "BuilderFlag.INT8": V8 + V10,
    "BuilderFlag.PREFER_PRECISION_CONSTRAINTS": V8 + V10,
    "ILayer.precision": V8 + V10,
    "ILayer.set_output_type": V8 + V10,
    "IBuilderConfig.int8_calibrator": V8 + V10,
    "IBuilderConfig.set_calibration_profile": V8 + V10,
    "IInt8EntropyCalibrator2": V8 + V10,
    # Only where the graph's types can be made binding.
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": V10 + V11,
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": V8 + V10,
    # Only where a build tells how far it is.
    "IProgressMonitor": V10 + V11,
    "IBuilderConfig.progress_monitor": V10 + V11,
    # Parser errors that name their node.
    "ParserError.node_name": V10 + V11,
    "ParserError.node_operator": V10 + V11,
    # Graphs rewritten for the DLA.
    "OnnxParser.set_builder_config": VERSIONS[3:],
    "OnnxParserFlag.ADJUST_FOR_DLA": VERSIONS[3:],
    "ICudaEngine.device_memory_size": V8 + V10,
    "ICudaEngine.device_memory_size_v2": V10 + V11,
}


# What the fake answers of itself; our code compares with the other member.
ANSWERS = {"ProfilingVerbosity.LAYER_NAMES_ONLY", "TensorIOMode.OUTPUT"}


def names(version):
    """All names of a release's vector: classes, their members, members of enumerations."""
    data = vector(version)
    found = set(data["functions"])
    for name, kind in data["classes"].items():
        found.add(name)
        found |= {f"{name}.{member}" for member in (*kind["methods"], *kind["properties"])}
    for name, members in data["enums"].items():
        found |= {f"{name}.{member}" for member in members}
    return found


def source_words():
    """Every attribute and every word in a text of our modules."""
    words = set()
    for path in ENGINES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                words.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                words.add(node.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.update(re.findall(r"\w+", node.value))
    return words


def test_every_name_is_in_all_releases_or_behind_a_gate():
    union = set().union(*map(names, VERSIONS))
    missing = {
        name: tuple(v for v in VERSIONS if name in names(v))
        for name in union
        if not all(name in names(v) for v in VERSIONS)
    }
    # Members of a class that is gated as a whole need no gate of their own; types of tensors come
    # from the engine, and are looked up by name.
    inside = {n for n in missing if n.partition(".")[0] in GATED and n not in GATED}
    types = {n for n in missing if n.startswith("DataType.")}
    assert {n: v for n, v in missing.items() if n not in inside | types} == GATED


def test_vectors_hold_only_what_our_code_names():
    words = source_words()
    # Objects of a class without a word in our code are given by calls that are in it.
    members = {n for n in set().union(*map(names, VERSIONS)) if "." in n}
    unused = {n for n in members - ANSWERS if n.rpartition(".")[2] not in words}
    assert {n for n in unused if not n.startswith("DataType.")} == set()


def test_every_gate_asks_for_a_name_that_a_release_has():
    """A gate with a misspelt name would be closed for ever, and no test would see it."""
    union = set().union(*map(names, VERSIONS))
    members = {name.rpartition(".")[2] for name in union}
    gates = []
    for path in ENGINES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if isinstance(node.func, ast.Name) and node.func.id == "hasattr":
                gates += [text for text in texts if isinstance(text, str)]
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "has":
                gates.append(".".join(texts))
    assert len(gates) >= 10
    assert [g for g in gates if g not in union and g not in members] == []


def test_flags_of_every_route_exist_where_the_route_is_taken():
    for version in VERSIONS:
        made = api(version)
        for precision in ("fp32", "fp16", "int8"):
            for dla in (False, True):
                if dla and (precision == "fp32" or (version in V11 and precision == "int8")):
                    continue
                for route in routes(precision, capabilities(made), dla=dla):
                    for flag in route.flags:
                        assert hasattr(made.module.BuilderFlag, flag), (version, route.name)
                    for flag in route.parser_flags:
                        assert hasattr(made.module.OnnxParserFlag, flag), (version, route.name)
                    assert made.strong_typing or not route.strong
                    assert made.implicit_int8 or not route.calibration


@pytest.mark.parametrize("version", VERSIONS)
def test_signatures_of_the_fake_are_those_of_the_bindings(version):
    made = make(version)
    data = vector(version)
    checked = 0
    for kind in CLASSES:
        spec = data["classes"].get(kind.__name__)
        assert (spec is not None) is hasattr(made, kind.__name__)
        if spec is None:
            continue
        for name, value in public(kind).items():
            present = name in spec["methods"] or name in spec["properties"]
            assert hasattr(getattr(made, kind.__name__), name) is present, name
            if name in spec["methods"]:
                code = value.__code__
                arguments = code.co_varnames[1 : code.co_argcount]
                assert any(accepts(text, arguments) for text in spec["methods"][name]), name
                checked += 1
    assert checked >= 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(self: A) -> None", []),
        ("(self: A, x: int, y: str = None) -> bool", [("x", False), ("y", True)]),
        ("(self: A, s: E = <E.STATIC: 0>, d: Dict[str, int]) -> B", [("s", True), ("d", False)]),
        ("() -> int", []),
    ],
)
def test_signatures_are_read(text, expected):
    assert parameters(text) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_fake_has_nothing_that_the_release_has_not(version):
    module = make(version)
    with pytest.raises(AttributeError):
        _ = module.build_everything
    with pytest.raises(AttributeError):
        _ = module.BuilderFlag.FAST
    logger = api(version).logger
    config = module.Builder(logger).create_builder_config()
    with pytest.raises(AttributeError):
        config.builder_optimisation_level = 3
    with pytest.raises(AttributeError):
        module.Builder(logger).num_DLA_cores = 2
    assert hasattr(config, "progress_monitor") is (version not in V8)
    assert hasattr(config, "int8_calibrator") is (version not in V11)


@pytest.mark.parametrize("version", VERSIONS)
def test_fake_swallows_exceptions_as_the_bindings_do(version, capfd):
    module = make(version)

    class Logger(module.ILogger):
        def __init__(self):
            module.ILogger.__init__(self)

        def log(self, severity, msg):
            raise ValueError("lost")

    callbacks.call(Logger(), "log", module.ILogger.Severity.ERROR, "x")
    assert "ValueError: lost" in capfd.readouterr().err

    class Forgetful(module.ILogger):
        def __init__(self):
            """Does not call the base's."""

    with pytest.raises(TypeError, match=r"ILogger\.__init__"):
        Forgetful()


@pytest.fixture
def port():
    running.MISUSE.clear()
    made = HostPort(ORIN_NANO)
    yield made
    gc.collect()
    assert made.live == 0
    assert running.MISUSE == []


def reference(source, style, frames):
    session = ort.InferenceSession(
        source.graph(style).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: frames})[0]


def run_all(version, precision, port, monkeypatch, **changes):
    """Build, load, run batches of different sizes; gives product, precision, largest error."""
    if precision != "fp16":
        monkeypatch.setattr(backend, "build_in_process", build_here)
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("VIGIA_FAKE_TENSORRT", version)
    system = System(api(version), port)
    monkeypatch.setattr(backend, "system", lambda: system)
    options = Options(RunOptions(batch=4), TensorRtOptions(**changes))
    model_info = info(max_batch=None)
    source = Source(two_convolutions(), model_info, Pictures(), method="max")
    trt = TensorRtBackend()
    product = trt.build(source, Recipe(precision), options, lambda progress: None)
    engine = trt.load(product.blob, model_info, options)
    errors = []
    frames = np.stack(list(Pictures()))
    for batch in (1, 4) if "dla_core" not in changes else (4,):
        context = engine.create_context(batch)
        (name,) = context.inputs
        context.inputs[name][...] = frames[:batch]
        expected = reference(source, "device", frames[:batch])
        found = context.infer()["output0"]
        assert found.shape == expected.shape
        errors.append(float(np.abs(found.astype(np.float32) - expected).max()))
        context.close()
    proven = engine.precision
    engine.close()
    return product, proven, max(errors) / float(np.abs(expected).max())


TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-2}
"""Largest error, as a share of the largest output."""


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_build_load_run(version, precision, port, monkeypatch):
    product, proven, error = run_all(version, precision, port, monkeypatch)
    expected = routes(precision, capabilities(api(version)), dla=False)[0].name
    assert product.route == expected
    assert proven == precision
    assert error <= TOLERANCE[precision]


@pytest.mark.parametrize(
    ("version", "precision"),
    [(v, p) for v in VERSIONS for p in ("fp16", "int8") if (v, p) != (*V11, "int8")],
)
def test_build_load_run_on_a_dla(version, precision, port, monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "dla:2")
    product, proven, error = run_all(version, precision, port, monkeypatch, dla_core=1)
    assert product.route.startswith("dla: ")
    assert proven == precision
    assert error <= TOLERANCE[precision]


def test_pictures_are_normalised_as_the_graph_does():
    model_info = info(max_batch=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    source = Source(two_convolutions(), model_info, None)
    frames = np.stack(list(Pictures()))
    by_graph = reference(source, "device", frames)
    by_hand = reference(source, "tensor", normalised(frames, model_info))
    np.testing.assert_allclose(by_hand, by_graph, rtol=1e-4, atol=1e-4)
    assert by_hand.shape[2:] == (SIZE, SIZE)
