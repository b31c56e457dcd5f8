"""Synthetic pictures on which a pose network decides nothing: the failed proof says so."""

from __future__ import annotations

import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")

import edge
from runtimes.errors import ProofError


@pytest.mark.data
def test_a_source_that_does_not_agree_with_itself_is_said_to_prove_nothing(data, tmp_path):
    source = data / "real" / "movenet_single_pose_lightning_ptq.tflite"
    with pytest.raises(
        ProofError, match="the source does not agree with itself on these inputs: with LiteRT"
    ) as caught:
        edge.convert(source, tmp_path / "made", format="openvino", precision="int8")
    assert "pass real ones with --calibration" in caught.value.hint
