"""Write TFLite's fast non-maximum suppression, where tf2onnx writes the regular one.

TFLite_Detection_PostProcess without `use_regular_nms` gives each box its best class, and suppresses boxes whatever
their classes are. tf2onnx suppresses class by class, which finds boxes again that the source suppressed. A box whose
class the suppression does not see is one of the same class to it, so ONNX's operator only gets the best scores.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/kernels/detection_postprocess.cc
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.onnx.opset import opset_of

_AXES_AS_INPUT = 18  # the first opset in which ReduceMax takes its axes as an input


def suppress_across_classes(proto: Any) -> None:
    """Let each NonMaxSuppression of a model for one picture suppress boxes of all classes, in place.

    Its rows keep their meaning: picture, class, box.
    """
    for place, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "NonMaxSuppression":
            _rewrite(proto, place, node)


def _rewrite(proto: Any, place: int, node: Any) -> None:
    from onnx import helper, numpy_helper

    scores, rows = node.input[1], node.output[0]

    def constant(name: str, values: list[int]) -> str:
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"{rows}/{name}"))
        return f"{rows}/{name}"

    def make(op: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(op, inputs, [output], name=f"{output}/{op}", **attributes)

    best, best_class, found = (f"{rows}/{part}" for part in ("best", "class_of_box", "found"))
    columns = [f"{rows}/{part}" for part in ("picture", "class", "box")]
    if opset_of(proto) < _AXES_AS_INPUT:
        largest = make("ReduceMax", [scores], best, axes=[1], keepdims=1)
    else:
        largest = make("ReduceMax", [scores, constant("axes", [1])], best, keepdims=1)
    before = [
        largest,
        make("ArgMax", [scores], f"{rows}/classes", axis=1, keepdims=0),  # [1, boxes]
        make("Reshape", [f"{rows}/classes", constant("flat", [-1])], best_class),
    ]
    after = [
        make("Gather", [found, constant("first", [0])], columns[0], axis=1),
        make("Gather", [found, constant("last", [2])], columns[2], axis=1),
        make("Gather", [best_class, columns[2]], columns[1], axis=0),
        make("Concat", columns, rows, axis=1),
    ]
    node.input[1], node.output[0] = best, found
    for offset, one in enumerate(after):
        proto.graph.node.insert(place + 1 + offset, one)
    for offset, one in enumerate(before):
        proto.graph.node.insert(place + offset, one)
