"""Which version of each operator does the Edge TPU compiler know? It reads a model with a frozen TFLite.

One operator of a later version, mappable or not, and the compiler does not read the model at all: "Didn't find op
for builtin opcode 'QUANTIZE' version '3'".

Source: the release in which each version appeared, from FindMinimumRuntimeVersionForOp in
tensorflow/lite/tools/versioning/runtime_version.cc (TensorFlow, Apache-2.0), taken up to release 2.5. That the last
compiler (16.0, July 2021) stands at TensorFlow 2.5 is inferred: libedgetpu of the same release builds against 2.5,
and QUANTIZE 3, of 2.7, is refused (https://github.com/google-coral/edgetpu/issues/879).
"""

from __future__ import annotations

FROZEN_AT = "TensorFlow 2.5"

# The newest version known, for operators that have more than one; the others that are known are at version 1.
_NEWEST_VERSIONS = """
    ABS 3, ADD 3, ARG_MAX 2, ARG_MIN 2, AVERAGE_POOL_2D 3, BATCH_MATMUL 4, BATCH_TO_SPACE_ND 3,
    BIDIRECTIONAL_SEQUENCE_LSTM 3, BIDIRECTIONAL_SEQUENCE_RNN 3, BROADCAST_TO 3, CONCATENATION 3, CONV_2D 5,
    DEPTH_TO_SPACE 2, DEPTHWISE_CONV_2D 6, DEQUANTIZE 4, DIV 2, EMBEDDING_LOOKUP 3, EQUAL 3, FAKE_QUANT 2, FILL 3,
    FLOOR_DIV 2, FULLY_CONNECTED 9, GATHER 5, GATHER_ND 3, GREATER 2, GREATER_EQUAL 2, L2_NORMALIZATION 2,
    LEAKY_RELU 2, LESS 2, LESS_EQUAL 2, LOG_SOFTMAX 2, LOGISTIC 3, LSTM 4, MAX_POOL_2D 3, MAXIMUM 4, MEAN 3,
    MINIMUM 4, MIRROR_PAD 2, MUL 4, NOT_EQUAL 3, PACK 3, PAD 3, PADV2 3, QUANTIZE 2, REDUCE_MAX 3, REDUCE_MIN 3,
    RELU 3, RELU6 3, RESIZE_BILINEAR 4, RESIZE_NEAREST_NEIGHBOR 4, REVERSE_V2 3, RNN 3, RSQRT 2, SELECT 2, SLICE 5,
    SOFTMAX 3, SPACE_TO_BATCH_ND 3, SPACE_TO_DEPTH 2, SPARSE_TO_DENSE 3, SPLIT 4, SPLIT_V 2, SQUARED_DIFFERENCE 2,
    SQUEEZE 2, STRIDED_SLICE 5, SUB 5, SUM 2, SVDF 4, TANH 3, TILE 2, TOPK_V2 2, TRANSPOSE 5, TRANSPOSE_CONV 3,
    UNIDIRECTIONAL_SEQUENCE_LSTM 3, UNIDIRECTIONAL_SEQUENCE_RNN 3, UNPACK 4
"""
_NEWEST = {name: int(version) for name, version in (entry.split() for entry in _NEWEST_VERSIONS.split(","))}

_LATER_OPERATORS = """
    ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CONV_3D_TRANSPOSE DILATE DYNAMIC_UPDATE_SLICE
    GELU MULTINOMIAL RANDOM_STANDARD_NORMAL RANDOM_UNIFORM READ_VARIABLE REDUCE_ALL REDUCE_WINDOW RELU_0_TO_1
    RIGHT_SHIFT SIGN UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE
"""
_LATER = frozenset(_LATER_OPERATORS.split())


def newest_known(name: str) -> int:
    """The newest version of a built-in operator that the compiler reads; 0 where it knows none."""
    if name in _LATER or name.startswith(("STABLEHLO_", "UNKNOWN_")):
        return 0
    return _NEWEST.get(name, 1)
