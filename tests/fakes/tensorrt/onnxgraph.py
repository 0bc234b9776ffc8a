"""What the fake's parser and builder see in a graph: refusals, layers, precisions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

KINDS = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
OPSETS = {8: (7, 17), 10: (9, 24), 11: (9, 24)}
QUANTISED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool"}
HIDDEN = {"QuantizeLinear", "DequantizeLinear", "Constant", "Identity", "Shape"}
WORDS = {"FLOAT": "FP32", "HALF": "FP16", "INT8": "Int8", "INT32": "Int32", "UINT8": "UInt8"}


def element_types(model):
    """ONNX element type of every tensor that inference can tell."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {v.name: v.type.tensor_type for v in [*graph.input, *graph.value_info, *graph.output]}
    types = {name: tensor.elem_type for name, tensor in known.items()}
    return types | {t.name: t.data_type for t in graph.initializer}


def shapes(model):
    """Shape of every tensor that inference can tell; -1 where it is open."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        v.name: tuple(
            d.dim_value if d.HasField("dim_value") else -1 for d in v.type.tensor_type.shape.dim
        )
        for v in [*graph.input, *graph.value_info, *graph.output]
    }


def refusals(model, major, refused_op):
    """What the parser has against a graph: (node index, node name, op, sentence)."""
    opset = next(o.version for o in model.opset_import if not o.domain)
    low, high = OPSETS[major]
    if not low <= opset <= high:
        return [(-1, "", "", f"Unsupported ONNX opset version {opset}")]
    constants = {t.name: t for t in model.graph.initializer}
    constants |= {
        n.output[0]: n.attribute[0].t
        for n in model.graph.node
        if n.op_type == "Constant" and n.attribute[0].HasField("t")
    }
    weights = set(constants) | {
        n.output[0]
        for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] in constants
    }
    images = {
        i.name for i in model.graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8
    }
    found = []
    for index, node in enumerate(model.graph.node):
        sentence = ""
        if node.op_type == refused_op or node.domain not in {"", "ai.onnx"}:
            sentence = f"No importer registered for op: {node.op_type}"
        elif images & set(node.input) and node.op_type != "Cast":
            sentence = "UINT8 network inputs can only be used by a Cast"
        elif node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            sentence = _quantisation(node, constants, weights)
        if sentence:
            found.append((index, node.name, node.op_type, sentence))
    return found


def _quantisation(node, constants, weights):
    scale = constants.get(node.input[1])
    if scale is None:
        return "Scale input must be an initializer"
    values = numpy_helper.to_array(scale)
    if not (values > 0).all():
        return "Scale coefficients must all be positive"
    if len(node.input) > 2 and numpy_helper.to_array(constants[node.input[2]]).any():
        return "Non-zero zero point is not supported. Input zero_point should be all zeros"
    if len(node.input) > 2 and constants[node.input[2]].data_type != TensorProto.INT8:
        return "Only int8 quantization is supported"
    if values.size > 1 and node.input[0] not in weights:
        return "Per-channel activation quantization is not supported"
    return ""


def quantised(model):
    """Whether the graph carries its own int8 ranges."""
    return any(n.op_type == "QuantizeLinear" for n in model.graph.node)


def layers(model, settle):
    """The inspector's layers.

    Args:
        model: the graph.
        settle: gives the precision of a floating-point layer: DataType's name, from the node's
            name, its operator, whether its input is dequantised, and the type in the graph.
    """
    types = element_types(model)
    size = shapes(model)
    dequantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    found = []
    for node in model.graph.node:
        if node.op_type in HIDDEN:
            continue
        kind = KINDS.get(types.get(node.output[0], TensorProto.FLOAT), "FLOAT")
        if kind in {"FLOAT", "HALF"}:
            from_int8 = node.op_type in QUANTISED and node.input[0] in dequantised
            kind = settle(node.name, node.op_type, from_int8, kind)
        found.append(
            {
                "Name": node.name or node.output[0],
                "LayerType": "CaskConvolution" if node.op_type == "Conv" else node.op_type,
                "Inputs": [_tensor(n, size, kind) for n in node.input[:1]],
                "Outputs": [_tensor(n, size, kind) for n in node.output[:1]],
                "TacticName": f"fake_{kind.lower()}_{node.op_type.lower()}",
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
        )
    return found


def _tensor(name, size, kind):
    words = WORDS.get(kind, kind)
    return {
        "Name": name,
        "Location": "Device",
        "Dimensions": list(size.get(name, ())),
        "Format/Datatype": f"Row major linear {words} format",
    }


def calibration_ranges(model, batches):
    """Largest magnitude of inputs and outputs over batches, as a calibrator would find."""
    import onnxruntime as ort  # noqa: PLC0415 - only calibration needs it

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = {}
    for feed in batches:
        outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed)))  # noqa: B905
        for name, value in (feed | outputs).items():
            amax = float(np.abs(value.astype(np.float32)).max())
            largest[name] = max(largest.get(name, 0.0), amax)
    return largest
