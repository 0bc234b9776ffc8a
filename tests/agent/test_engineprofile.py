"""The table of layers, and profiling of real engines."""

import json

import numpy as np
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from agent.cli import app
from agent.config import ModelConfig
from agent.enginecandidates import Workshop
from agent.engineprofile import Layer, Profile, as_dict, by_op, slowest_first, warnings
from agent.engineprofiler import as_it_is, run
from agent.errors import ConfigError
from engines.openvinobackend import OpenVinoBackend
from engines.ortbackend import OrtBackend
from tests.vectors.models import make_model

LAYERS = [
    Layer("a", "Conv", "int8", 2.0, (1, 8)),
    Layer("q", "QuantizeLinear", "uint8", 0.5),
    Layer("b", "Conv", "int8", 3.0),
    Layer("r", "ReorderInput", "fp32", 0.5),
    Layer("c", "Conv", "fp32", 1.0),
]


def profile(layers=LAYERS, precision="int8"):
    return Profile("onnxruntime", precision, slowest_first(layers), 8.0, 10)


def test_the_slowest_layer_comes_first():
    assert [layer.name for layer in profile().layers] == ["b", "a", "c", "q", "r"]


def test_layers_of_one_operation_and_precision_are_put_together():
    rows = [(g.op, g.precision, g.ms, g.count) for g in by_op(profile().layers)]
    assert rows == [
        ("Conv", "int8", 5.0, 2),
        ("Conv", "fp32", 1.0, 1),
        ("QuantizeLinear", "uint8", 0.5, 1),
        ("ReorderInput", "fp32", 0.5, 1),
    ]


def test_what_only_changes_type_or_layout_is_added_up():
    assert profile().reformat_ms == 1.0
    assert profile().reformat_share == pytest.approx(1 / 7)
    assert warnings(profile()) == []


@pytest.mark.parametrize(
    ("precision", "words"), [("int8", "change between int8 and float"), ("fp32", "another backend")]
)
def test_much_of_it_is_a_warning(precision, words):
    (sentence,) = warnings(profile([*LAYERS, Layer("x", "Reorder", "", 1.0)], precision))
    assert "25% of the time goes into 3 layers" in sentence
    assert words in sentence


def test_a_profile_without_layers_has_no_shares():
    assert profile([]).reformat_share == 0
    assert as_dict(profile([]))["layers"] == []


def test_json_has_the_first_layers_and_all_sums():
    told = as_dict(profile(), 2)
    assert [layer["layer"] for layer in told["layers"]] == ["b", "a"]
    assert told["layers"][0]["share"] == pytest.approx(3 / 7, abs=1e-4)
    assert told["layers_ms"] == 7.0
    assert len(told["by_op"]) == 4


@pytest.fixture
def path(tmp_path):
    return make_model(tmp_path / "m.onnx", nc=2, size=32, batch="dynamic")


def test_an_engine_of_onnx_runtime_is_profiled(path):
    workshop = Workshop(ModelConfig(path=path, threads=1), [OrtBackend()])
    found = run(workshop, "onnxruntime", "fp32", batch=2, runs=5)
    assert (found.backend, found.precision, found.runs) == ("onnxruntime", "fp32", 5)
    assert found.facts["batch"] == 2
    convolutions = [layer for layer in found.layers if layer.op == "Conv"]
    assert len(convolutions) == 3
    assert all(layer.shape[0] == 2 for layer in convolutions)
    assert found.total_ms <= found.run_ms


def test_an_engine_of_openvino_is_profiled(path):
    pytest.importorskip("openvino")
    workshop = Workshop(ModelConfig(path=path, threads=1), [OrtBackend(), OpenVinoBackend()])
    found = run(workshop, "openvino", "fp32", batch=1, runs=5)
    assert "Convolution" in {layer.op for layer in found.layers}
    assert {layer.precision for layer in found.layers if layer.op == "Convolution"} == {"fp32"}


def test_what_is_not_one_engine_is_refused(path):
    workshop = Workshop(ModelConfig(path=path, threads=1), [OrtBackend()])
    with pytest.raises(ConfigError, match="give one backend and one precision"):
        run(workshop, "auto", "auto", batch=1, runs=1)
    with pytest.raises(ConfigError, match="--precision bf16"):
        run(workshop, "onnxruntime", "bf16", batch=1, runs=1)


def test_the_command_prints_layers_and_sums(path):
    arguments = ["engine", "profile", str(path), "--runs", "3", "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, "--top", "2"])
    assert done.exit_code == 0, done.output
    assert "more: --top 0" in done.output
    assert "fp32 on onnxruntime: " in done.output
    assert "reformats" in done.output
    done = CliRunner().invoke(app, [*arguments, "--json", "--top", "0"])
    told = json.loads(done.stdout)
    assert {"layers", "by_op", "warnings", "host", "reformat_share", "threads"} <= set(told)


def test_a_file_that_is_quantised_already_is_profiled_as_it_is(path, tmp_path):
    source = Workshop(ModelConfig(path=path), [OrtBackend()]).source
    model = source.graph("tensor")
    names = [(w.name, f"{w.name}_q") for w in model.graph.initializer if len(w.dims) == 4]
    for name, quantised in names:
        tensor = next(w for w in model.graph.initializer if w.name == name)
        values = numpy_helper.to_array(tensor)
        scale = np.float32(np.abs(values).max() / 127)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(np.rint(values / scale).astype(np.int8), quantised),
                numpy_helper.from_array(scale, f"{name}_scale"),
            ]
        )
        node = helper.make_node("DequantizeLinear", [quantised, f"{name}_scale"], [name])
        model.graph.node.insert(0, node)
    file = tmp_path / "q.onnx"
    file.write_bytes(model.SerializeToString())
    found = as_it_is(ModelConfig(path=file, threads=1), batch=1, runs=3)
    assert (found.precision, found.facts["route"]) == ("int8", "the file as it is")
    assert any("Conv" in layer.op for layer in found.layers)
    done = CliRunner().invoke(app, ["engine", "profile", str(file), "--runs", "3"])
    assert done.exit_code == 0, done.output
    assert "int8 on onnxruntime" in done.output
