"""ONNX's own node tests: a sample of them is never converted wrong, and kinds that once failed stay right."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.breadth import node_tests
from tests.breadth.node_judge import verdict
from tests.breadth.node_tests import CRASHED, LACKS, RIGHT, WRONG, Case, LostError, Runner, Worker

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

_EVERY = 50
# Node test → what once went wrong with it.
KINDS = {
    "test_blackmanwindow": "an output whose size only one of both models fixes",
    "test_col2im_pads": "OpenVINO's own simplification fails on it",
    "test_constant": "a model without inputs",
    "test_convinteger_without_padding": "a quantized model, with fewer samples than quantization needs",
    "test_dft_rfft": "OpenVINO answers in another rank",
    "test_quantizelinear_axis": "ONNX Runtime has no kernel for it",
    "test_reduce_l2_default_axes_keepdims_example": "an input that decides nothing is dropped",
    "test_dynamicquantizelinear": "a value halfway between two steps",
    "test_quantizelinear_uint16": "the same with a zero point",
    "test_reduce_log_sum_exp_default_axes_keepdims_example_expanded": "a Cast whose name became that of an input",
    "test_reduce_log_sum_empty_set_expanded": "minus infinity is the right answer",
    "test_resize_upsample_sizes_nearest": "made-up sizes do not suit the model",
    "test_shape_start_greater_than_end": "an output without elements",
    "test_slice": "made-up steps of 0",
}
# The same in fp16.
HALF_KINDS = {
    "test_ai_onnx_ml_tree_ensemble_set_membership": "an input that is compared for equality must not be rounded",
    "test_ai_onnx_ml_binarizer": "a model without operators of ONNX's own set",
    "test_bitcast_float32_to_int32": "an operator that is about float32",
    "test_hannwindow": "an operator whose attribute gives the type of its result",
    "test_layer_normalization_2d_axis0": "mean and deviation, which stay float32",
    "test_scatternd_add": "no kernel for fp16",
}


@pytest.fixture(scope="module")
def cases():
    with pytest.warns(RuntimeWarning):  # ONNX computes the expected values with numpy, infinities and all
        return {one.name: one for one in node_tests.cases()}


@pytest.fixture(scope="module")
def runner():
    with Runner() as runner:
        yield runner


def test_no_model_of_the_sample_is_wrong_or_crashes(cases, tmp_path):
    chosen = list(cases.values())[::_EVERY]
    node_tests.fill(tmp_path / "rows.jsonl", chosen, "openvino")
    found = node_tests.read(tmp_path / "rows.jsonl").values()
    assert len(found) == len(chosen)
    assert [row for row in found if row["state"] in (WRONG, CRASHED)] == []
    assert sum(row["state"] == RIGHT for row in found) > len(found) // 2


@pytest.mark.parametrize(
    ("name", "target"),
    [*((name, "openvino") for name in KINDS), *((name, "onnx-fp16") for name in HALF_KINDS)],
)
def test_a_kind_that_once_failed_is_right(cases, runner, name, target):
    row = runner.row(cases[name], target)
    assert (row["state"], row["reason"]) == (RIGHT, "")


@pytest.mark.parametrize(
    "name",
    [
        "test_attention_local_window_ext_cache_rank4_batch_mask",
        "test_attention_23_fullymasked_qk_matmul_output_mode3_zero_expanded",
        "test_bitshift_right_int32_negative_input",
        "test_bitshift_right_int32_shift_ge_width",
        "test_resize_downsample_sizes_nearest_not_larger",
    ],
)
def test_what_openvino_computes_differently_is_not_accepted(cases, runner, name):
    row = runner.row(cases[name], "openvino")
    assert row["state"] == LACKS
    assert re.search(r"edge: output '\w+'", row["reason"])


def test_a_wrong_artifact_is_found_by_the_judge(cases, runner):
    """The planted fault: the test expects something else than the model computes."""
    case = cases["test_sub_example"]
    planted = Case(case.name, case.operator, case.model, case.inputs, [case.outputs[0] + 1])
    row = runner.row(planted, "openvino")
    # ONNX Runtime does not compute that either, so it is told apart from a wrong conversion.
    assert (row["state"], row["reason"].split(",")[0]) == (LACKS, "ONNX Runtime does not reproduce the test")


@pytest.mark.parametrize(
    ("given", "agrees"),
    [
        ([1.0, -np.inf, np.nan], True),
        ([1.0 + 1e-5, -np.inf, np.nan], True),
        ([1.1, -np.inf, np.nan], False),
        ([1.0, np.inf, np.nan], False),
        ([1.0, -np.inf, 0.0], False),
        ([1.0, -np.inf], False),
    ],
)
def test_the_judge_compares_values_and_what_is_not_finite(given, agrees):
    assert verdict({"y": np.array([1.0, -np.inf, np.nan])}, [np.array(given)], "fp32")[0] == agrees


def test_the_judge_compares_whole_numbers_exactly_and_outputs_by_their_number():
    expected = {"y": np.array([1, 2, 3])}
    assert verdict(expected, [np.array([1, 2, 3])], "fp32") == (True, "")
    assert verdict(expected, [np.array([1, 2, 4])], "fp32") == (False, "'y' differs in 1 of 3 values")
    assert not verdict(expected, [], "fp32")[0]


def test_a_value_halfway_between_two_steps_may_be_quantized_to_either():
    expected, halfway = {"y": np.array([2, 3], np.uint8)}, {"y": np.array([True, False])}
    assert verdict(expected, [np.array([1, 3], np.uint8)], "fp32", halfway) == (True, "")
    for wrong in ([0, 3], [2, 2]):
        assert not verdict(expected, [np.array(wrong, np.uint8)], "fp32", halfway)[0]


def test_a_process_that_ends_or_hangs_is_lost_and_the_next_job_gets_a_new_one(tmp_path):
    worker = Worker()
    with pytest.raises(LostError, match="ended with status"):
        worker.ask({"do": "nothing that it knows"})
    with pytest.raises(LostError, match="took more than 0 s"):
        worker.ask({"do": "judge", "case": str(tmp_path), "target": "openvino", "out": str(tmp_path)}, timeout_s=0)
    answer = worker.ask({"do": "judge", "case": str(tmp_path), "target": "openvino", "out": str(tmp_path)})
    worker.close()
    assert not answer["agrees"]


def test_a_reason_names_no_folder_of_this_machine():
    inside = Path.home() / ".cache" / "site-packages" / "onnx2tf.py"
    passing = Path(tempfile.gettempdir()) / "node-x" / "case" / "model.onnx"
    text = f"{inside}:27:1: note from {passing}; node '/layer/Sub' stays"
    assert node_tests.without_folders(text) == "onnx2tf.py:27:1: note from model.onnx; node '/layer/Sub' stays"


def test_rows_that_are_there_are_not_made_again(cases, tmp_path):
    case = cases["test_sub_example"]
    out = tmp_path / "rows.jsonl"
    row = {"case": case.name, "target": "openvino", "operator": "Sub", "state": RIGHT, "reason": "", "named": []}
    out.write_text(json.dumps(row) + "\n")
    node_tests.fill(out, [case], "openvino")
    assert out.read_text() == json.dumps(row) + "\n"
    text = node_tests.table(node_tests.read(out))
    assert "1 models: 1 right, 0 refused, 0 engine lacks it, 0 WRONG, 0 crashed; 100.0 % of those that it can." in text
    assert "All right: Sub." in text
