"""The engine that does nothing."""

from __future__ import annotations

import numpy as np

from runtimes import registry
from runtimes.artifact import Artifact, Manifest, write
from runtimes.artifact.manifest import TensorSpec
from runtimes.session import RunOptions


def test_it_answers_its_own_input_whatever_a_manifest_calls_it(tmp_path):
    (tmp_path / "m.null").write_bytes(b"x")
    spec = TensorSpec("picture", "uint8", (1, 4))
    write(tmp_path, Manifest("m", "null", "fp32", "m.null", inputs=(spec,), outputs=(spec,)), {}, {})
    with registry.tensor_engine("null").open(Artifact.open(tmp_path), RunOptions()) as session:
        feeds = {one.name: np.full(one.shape, 3, one.dtype) for one in session.inputs}
        answer = session.run(feeds)
    assert answer.keys() == {one.name for one in session.outputs}
    assert answer["picture"].tolist() == [[3, 3, 3, 3]]
