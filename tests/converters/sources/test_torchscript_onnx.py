"""TorchScript with branches, loops and states: to ONNX as If and Loop, or refused by the line that writes the state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.options import ConvertOptions
from converters.sources import source_of
from runtimes.errors import EngineError, InputError

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
nn = torch.nn

CODE = """
import torch
from torch import nn


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x, scale):
        if bool(x.sum() > 0):
            y = self.norm(self.dense(x))
        else:
            y = x * 2 - 1
        count = 0
        while bool(y.abs().sum() < 100) and count < 10:
            y = y * 2 + scale
            count += 1
        return y


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(1)

    def forward(self, x):
        self.seen = self.seen + x.sum()
        return x + self.seen


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        if bool(x.sum() > 1e9):
            x = -x
        self.seen.add_(1)
        return x + self.seen


class Spectrum(nn.Module):
    def forward(self, x):
        while bool(x.sum() > 10):
            x = x / 2
        return torch.special.i0e(x)


class Chosen(nn.Module):
    def forward(self, x, rate: int):
        return x * rate
"""


@pytest.fixture
def nets(tmp_path, monkeypatch, request):
    """A module of networks in the working folder: its name, and what it holds."""
    name = f"branches_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(3)
    return name, __import__(name)


def exported(path: Path, out: Path, inputs, **options):
    source = source_of(path)
    opened = source.open(path, source.Options(inputs=tuple(inputs), **options)).export
    assert opened is not None
    return opened.run(out)


def saved(module, tmp_path):
    torch.jit.save(torch.jit.script(module.eval()), tmp_path / "model.jit")
    return tmp_path / "model.jit"


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("opset", [None, 13])
def test_branches_and_loops_become_if_and_loop(nets, tmp_path, opset):
    module = nets[1].Branches().eval()
    path = exported(saved(module, tmp_path), tmp_path, ["x=3x4", "scale=1"], opset=opset)
    assert path == tmp_path / "model.onnx"
    assert {"If", "Loop"} <= operators(path)
    assert onnx.load(path).opset_import[0].version == (opset or 17)
    session = ort.InferenceSession(str(path))
    for scale in (1, -1, 30):
        x, factor = scale * torch.rand(3, 4), torch.full((1,), 0.5)
        (answer,) = session.run(None, {"x": x.numpy(), "scale": factor.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(answer, module(x, factor).numpy(), rtol=1e-5)


def test_a_module_of_ones_own_code_keeps_its_branches(nets, tmp_path):
    weights = tmp_path / "weights.pt"
    module = nets[1].Branches().eval()
    torch.save(module.state_dict(), weights)
    path = exported(Path(f"{nets[0]}:Branches"), tmp_path, ["3x4", "1"], weights=weights)
    assert path == tmp_path / "Branches.onnx"
    session = ort.InferenceSession(str(path))
    for x in (torch.ones(3, 4), -torch.ones(3, 4)):
        (answer,) = session.run(None, {"x": x.numpy(), "scale": np.ones(1, np.float32)})
        with torch.no_grad():
            np.testing.assert_allclose(answer, module(x, torch.ones(1)).numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "inputs", "error", "words"),
    [
        (
            "Counting",
            ["3"],
            InputError,
            r"keeps a state .* writes 'self\.seen' \(line \d+ of its code: .*self\.seen = ",
        ),
        ("Hidden", ["3"], EngineError, "keeps a state"),
        ("Spectrum", ["3"], EngineError, "operator 'aten::special_i0e' has no ONNX form"),
        ("Chosen", ["3", "1:int64"], InputError, "takes 'rate', which is of type int"),
    ],
)
def test_what_onnx_cannot_hold_is_named(nets, tmp_path, name, inputs, error, words):
    with pytest.raises(error, match=words) as caught:
        exported(saved(vars(nets[1])[name](), tmp_path), tmp_path, inputs)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_the_planned_steps_go_on_from_onnx():
    from edge.conversion.convert import _after_onnx
    from edge.conversion.planning import ConversionPlan

    def after(*steps):
        return _after_onnx(ConversionPlan(format="onnx", steps=steps, options=ConvertOptions()))

    assert after("pt2_to_onnx") == ()
    assert after("pt2_to_onnx", "onnx_to_tflite", "tflite_to_edgetpu") == ("onnx_to_tflite", "tflite_to_edgetpu")


@pytest.mark.slow
def test_the_conversion_goes_on_from_onnx(nets, tmp_path):
    edge = pytest.importorskip("edge")
    made = edge.convert(
        saved(nets[1].Branches(), tmp_path),
        tmp_path / "out",
        format="onnx",
        source_options=source_of(tmp_path / "model.jit").Options(inputs=("x=3x4", "scale=1")),
    )
    assert any("exported to ONNX instead" in note for note in made.notes)
    assert made.files == ("manifest.json", "model.onnx", "selfcheck.npz")
