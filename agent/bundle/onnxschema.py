"""The messages of an ONNX file, as far as a model for inference has them.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3 (IR version 13). Left out, so
refused: training (`training_info`), tensors in segments, and placement on several devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.bundle.protowire import Schema

MODEL: Schema = {
    1: "i",  # ir_version
    2: "t",  # producer_name
    3: "t",  # producer_version
    4: "t",  # domain
    5: "i",  # model_version
    6: "t",  # doc_string
    7: "b",  # graph
    8: "B",  # opset_import
    14: "B",  # metadata_props
    25: "B",  # functions
}
OPSET: Schema = {1: "t", 2: "i"}  # domain, version
ENTRY: Schema = {1: "t", 2: "t"}  # key, value

GRAPH: Schema = {
    1: "B",  # node
    2: "t",  # name
    5: "B",  # initializer
    10: "t",  # doc_string
    11: "B",  # input
    12: "B",  # output
    13: "B",  # value_info
    14: "B",  # quantization_annotation
    15: "B",  # sparse_initializer
    16: "B",  # metadata_props
}
FUNCTION: Schema = {
    1: "t",  # name
    4: "T",  # input
    5: "T",  # output
    6: "T",  # attribute
    7: "B",  # node
    8: "t",  # doc_string
    9: "B",  # opset_import
    10: "t",  # domain
    11: "B",  # attribute_proto
    12: "B",  # value_info
    13: "t",  # overload
    14: "B",  # metadata_props
}
NODE: Schema = {
    1: "T",  # input
    2: "T",  # output
    3: "t",  # name
    4: "t",  # op_type
    5: "B",  # attribute
    6: "t",  # doc_string
    7: "t",  # domain
    8: "t",  # overload
    9: "B",  # metadata_props
}
ATTRIBUTE: Schema = {
    1: "t",  # name
    2: "f",  # f
    3: "i",  # i
    4: "b",  # s
    5: "b",  # t
    6: "b",  # g
    7: "F",  # floats
    8: "I",  # ints
    9: "B",  # strings
    10: "B",  # tensors
    11: "B",  # graphs
    13: "t",  # doc_string
    14: "b",  # tp
    15: "B",  # type_protos
    20: "i",  # type
    21: "t",  # ref_attr_name
    22: "b",  # sparse_tensor
    23: "B",  # sparse_tensors
}
TENSOR: Schema = {
    1: "I",  # dims
    2: "i",  # data_type
    4: "F",  # float_data
    5: "I",  # int32_data
    6: "B",  # string_data
    7: "I",  # int64_data
    8: "t",  # name
    9: "b",  # raw_data
    10: "D",  # double_data
    11: "I",  # uint64_data
    12: "t",  # doc_string
    13: "B",  # external_data
    14: "i",  # data_location
    16: "B",  # metadata_props
}
SPARSE: Schema = {1: "b", 2: "b", 3: "I"}  # values, indices, dims
ANNOTATION: Schema = {1: "t", 2: "B"}  # tensor_name, quant_parameter_tensor_names

VALUE: Schema = {1: "t", 2: "b", 3: "t", 4: "B"}  # name, type, doc_string, metadata_props
TYPE: Schema = {
    1: "b",  # tensor_type
    4: "b",  # sequence_type
    5: "b",  # map_type
    6: "t",  # denotation
    8: "b",  # sparse_tensor_type
    9: "b",  # optional_type
}
TENSOR_TYPE: Schema = {1: "i", 2: "b"}  # elem_type, shape
ELEMENT_TYPE: Schema = {1: "b"}  # elem_type, of a sequence or an optional
MAP_TYPE: Schema = {1: "i", 2: "b"}  # key_type, value_type
SHAPE: Schema = {1: "B"}  # dim
DIMENSION: Schema = {1: "i", 2: "t", 3: "t"}  # dim_value, dim_param, denotation

EXTERNAL = 1
"""`data_location` of a tensor that lies in another file."""

STRING = 8
BITS = {
    1: 32,  # FLOAT
    2: 8,  # UINT8
    3: 8,  # INT8
    4: 16,  # UINT16
    5: 16,  # INT16
    6: 32,  # INT32
    7: 64,  # INT64
    9: 8,  # BOOL
    10: 16,  # FLOAT16
    11: 64,  # DOUBLE
    12: 32,  # UINT32
    13: 64,  # UINT64
    14: 64,  # COMPLEX64
    15: 128,  # COMPLEX128
    16: 16,  # BFLOAT16
    17: 8,  # FLOAT8E4M3FN
    18: 8,  # FLOAT8E4M3FNUZ
    19: 8,  # FLOAT8E5M2
    20: 8,  # FLOAT8E5M2FNUZ
    21: 4,  # UINT4
    22: 4,  # INT4
    23: 4,  # FLOAT4E2M1
    24: 8,  # FLOAT8E8M0
    25: 2,  # UINT2
    26: 2,  # INT2
}
"""Bits of an element by data type; all but texts, `STRING`."""
