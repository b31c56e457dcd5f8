"""Errors of libraries become one line that names the operator and does not blame the file."""

from __future__ import annotations

import pytest

from converters.library_calls import converting, loading, useful_text
from runtimes.errors import EngineError, InputError

LONG = """Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted. Failed operations detailed log:
-- Conv-15 with a message:
The input data tensor's rank has to be known (static)

Summary:
-- Conversion is failed for: Conv-15, ReduceMean-15
"""
TRANSLATOR = """Check 'translate_map.count(decoder->get_op_type())' failed at src/tensorflow_lite/frontend.cpp:221:
FrontEnd API failed with OpConversionFailure:
No translator found for TFLite_Detection_PostProcess node.
"""


TREES = "FrontEnd API failed:\nNo conversion rule found for operations: ai.onnx.ml.TreeEnsembleClassifier-1\n"


@pytest.mark.parametrize(
    ("text", "operators", "sizes_may_help"),
    [
        (LONG, "Conv-15, ReduceMean-15$", True),
        (TRANSLATOR, "TFLite_Detection_PostProcess", False),
        (TREES, "of m.onnx: ai.onnx.ml.TreeEnsembleClassifier-1$", False),
    ],
)
@pytest.mark.parametrize("call", [loading, converting])
def test_an_operator_that_openvino_lacks_is_named_and_the_file_is_not_blamed(text, operators, sizes_may_help, call):
    with pytest.raises(EngineError, match=operators) as caught, call("m.onnx", "ONNX"):
        raise RuntimeError(text)
    assert "damaged" not in caught.value.hint
    assert ("--shape" in caught.value.hint) is sizes_may_help
    assert "cannot be read" not in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_a_library_cannot_read_is_still_an_input_error():
    with pytest.raises(InputError, match="cannot be read as ONNX: bad wire type"), loading("m.onnx", "ONNX"):
        raise RuntimeError("bad wire type")


def test_the_place_in_a_librarys_own_code_is_skipped():
    text = "Exception from src/core/node.cpp:12:\nCheck 'rank' failed at src/x.cpp:3:\nThe rank has to be known"
    assert useful_text(text) == "The rank has to be known"
    assert useful_text("Check 'rank' failed at src/x.cpp:3:") == "Check 'rank' failed at src/x.cpp:3:"


def test_lines_without_words_are_skipped():
    assert useful_text("-----------\n\n=====\nthe batch is not 1\n") == "the batch is not 1"


def test_an_operator_that_tflite_lacks_is_named():
    text = (
        "Could not translate MLIR to FlatBuffer. runner.py:27:1: error: 'tf.MaxPool3D' op is neither a custom op nor a "
        "flex op\n<unknown>:0: error: failed while converting: 'main':\nSome ops are not supported by the native TFLite"
    )
    assert useful_text(text) == "TFLite has no operator for MaxPool3D"
    details = "\nDetails:\n\ttf.MaxPool3D(tensor<1x4x4x4x2xf64>) -> (tensor<1x2x2x2x2xf64>) : {}"
    assert useful_text(text + details) == "TFLite has no operator for MaxPool3D in float64"
    half = details.replace("f64", "f16")
    assert useful_text(text + half) == "TFLite has no operator for MaxPool3D in float16"


def test_an_operator_that_onnx2tf_lacks_is_named():
    text = "Traceback (most recent call last):\nNo module named 'onnx2tf.ops.TreeEnsembleClassifier'"
    assert useful_text(text) == "it does not support the operator TreeEnsembleClassifier"
