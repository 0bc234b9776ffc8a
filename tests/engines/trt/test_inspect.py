"""The inspector's JSON is read as releases write it; precision is what most computing layers do."""

import json

import pytest

from engines.errors import BackendError
from engines.trt.inspect import read


def layer(name, kind, *types, out=None, **more):
    tensors = [{"Name": "x", "Dimensions": [1, 8], "Format/Datatype": kind} for kind in types]
    outputs = [{"Name": "y", "Format/Datatype": out or types[0]}] if types else []
    return {"Name": name, "LayerType": kind, "Inputs": tensors, "Outputs": outputs} | more


def conv(kind, name="conv"):
    return layer(name, "CaskConvolution", kind)


def text(*layers, tensors="Bindings"):
    return json.dumps({"Layers": list(layers), tensors: ["frames"]})


FP32 = "Row major linear FP32"
FP16 = "Two wide channel vectorized row major FP16 format"
INT8 = "Thirty-two wide channel vectorized row major Int8 format"


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        (FP32, "fp32"),
        ("Float", "fp32"),
        (FP16, "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Half", "fp16"),
        ("Row major linear BFloat16", "bf16"),
        ("BF16", "bf16"),
        (INT8, "int8"),
        ("Int8", "int8"),
    ],
)
def test_spellings_of_types(words, precision):
    assert read(text(conv(words))).precision == precision


def test_frames_of_bytes_are_no_arithmetic_in_int8():
    facts = read(text(layer("cast", "kgen", "UInt8", out="Float"), conv(FP32)))
    assert facts.layers[0].precision == "other"
    assert facts.precision == "fp32"


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [
        ([INT8, INT8, INT8, FP16], "int8"),
        ([INT8, FP16, FP16, FP16], "fp16"),
        ([FP16, FP16, FP16, FP32], "fp16"),
        ([INT8, INT8, FP16, FP32], "mixed"),
        ([FP16, FP32, FP32, FP32], "mixed"),
        ([FP32, FP32], "fp32"),
    ],
)
def test_precision_is_that_of_most_computing_layers(kinds, precision):
    assert read(text(*map(conv, kinds))).precision == precision


def test_what_computes_nothing_is_not_counted():
    resize = [layer(f"resize{n}", "Resize", FP32) for n in range(9)]
    copy = layer("Reformatting CopyNode for Input Tensor 0 to conv", "Reformat", FP32)
    facts = read(text(copy, *resize, conv(FP16)))
    assert facts.precision == "fp16"
    assert facts.counts == {"fp16": 1, "fp32": 9, "reformat": 1}


def test_both_names_of_the_tensors_are_read():
    assert read(text(conv(FP16))) == read(text(conv(FP16), tensors="I/O Tensors"))


def test_fused_kernels_count():
    rows = [layer("__myl_AddMul_myl0_8", "kgen", "Half"), layer("MatMul_myl0_9", "gemm", "Half")]
    assert read(text(*rows)).precision == "fp16"


def test_layers_of_a_dla_are_counted_apart():
    facts = read(text(layer("{ForeignNode[conv1...conv9]}", "DLA", FP16), conv(FP16)))
    assert facts.counts["dla"] == 1


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"Layers": 3}', '{"Layers": [4]}'])
def test_what_is_no_list_of_layers_is_refused(broken):
    with pytest.raises(BackendError, match="no list of layers"):
        read(broken)


def test_engine_without_details_proves_nothing():
    with pytest.raises(BackendError, match="detailed verbosity"):
        read(json.dumps({"Layers": ["conv1", "conv2"], "Bindings": []}))
