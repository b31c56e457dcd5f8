"""PyTorch to ONNX: the requested opset, the names of the program, and the same answers."""

from __future__ import annotations

import numpy as np
import pytest

from converters.onnx.opset import check_opset, choose_opset
from converters.options import ConvertOptions
from converters.pt2_to_onnx import Pt2ToOnnx
from converters.pytorch.exported_program import write_program
from converters.sources.huggingface import HuggingfaceSource
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions, example_feeds

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
nn = torch.nn


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, signal):
        return signal + nn.functional.relu6(self.norm(self.depthwise(signal)))


class Attention(nn.Module):
    """Masked attention between LayerNorms: two inputs, two outputs by name."""

    def __init__(self, causal=False):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.norm = nn.LayerNorm(16)
        self.mix = nn.Linear(16, 16)
        self.causal = causal

    def forward(self, ids, mask):
        signal = self.norm(self.embed(ids))
        parts = self.mix(signal).view(1, 8, 2, 8).transpose(1, 2)
        seen = None if self.causal else mask[:, None, None, :].bool()
        mixed = nn.functional.scaled_dot_product_attention(parts, parts, parts, seen, is_causal=self.causal)
        states = nn.functional.gelu(signal + mixed.transpose(1, 2).flatten(-2))
        return {"states": states, "pooled": torch.tanh(states[:, 0])}


def network():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), Residual()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.Softmax(-1))
    model(torch.randn(8, 3, 16, 16))  # statistics of a batch
    return model.eval()


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    ids = torch.arange(8)[None]
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]])
    torch.manual_seed(4)
    write_program(network(), [torch.zeros(1, 3, 16, 16)], folder / "pictures.pt2", "pictures")
    for name, causal in (("masked", False), ("causal", True)):
        write_program(Attention(causal).eval(), {"ids": ids, "mask": mask}, folder / f"{name}.pt2", name)
    return folder


def answers(path, feeds):
    with for_format(Artifact.open(path).manifest.format).open(Artifact.open(path), RunOptions()) as session:
        return session.run(feeds or example_feeds(session.inputs, 1)), feeds or example_feeds(session.inputs, 1)


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20, 22])
@pytest.mark.parametrize("name", ["pictures", "masked", "causal"])
def test_the_opset_is_met_and_the_answers_are_the_same(programs, tmp_path, name, opset):
    made = Pt2ToOnnx().convert(programs / f"{name}.pt2", tmp_path, ConvertOptions(opset=opset), None).model
    model = onnx.load(made)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    expected, feeds = answers(programs / f"{name}.pt2", None)
    given, _ = answers(made, feeds)
    assert list(given) == list(expected)
    for output, values in expected.items():
        np.testing.assert_allclose(given[output], values, atol=2e-6)


def test_outputs_bear_the_keys_that_the_module_gave_them(programs):
    expected, feeds = answers(programs / "masked.pt2", None)
    assert sorted(expected) == ["pooled", "states"]
    assert sorted(feeds) == ["ids", "mask"]


@pytest.mark.parametrize("opset", [10, 23])
def test_an_opset_that_cannot_be_written_is_refused(programs, tmp_path, opset):
    with pytest.raises(UsageError, match=f"cannot write opset {opset}") as caught:
        Pt2ToOnnx().convert(programs / "pictures.pt2", tmp_path, ConvertOptions(opset=opset), None)
    assert caught.value.hint == "ask for one of 11 to 22"
    assert list(tmp_path.iterdir()) == []


def test_another_opset_than_asked_for_is_an_error(programs, tmp_path):
    model = onnx.load(Pt2ToOnnx().convert(programs / "pictures.pt2", tmp_path, ConvertOptions(opset=18), None).model)
    with pytest.raises(EngineError, match="wrote opset 18 instead of 17"):
        check_opset(model, 17, "a tool")
    node = model.graph.node[0]
    given, node.input[0] = node.input[0], "nowhere"
    with pytest.raises(EngineError, match="a tool wrote an invalid model"):
        check_opset(model, 18, "a tool")
    node.input[0], node.op_type = given, "Nonsense"
    with pytest.raises(EngineError, match="a tool does not convert the operator Nonsense, or not to opset 18"):
        check_opset(model, 18, "a tool")
    assert choose_opset(None, 18, 11, 22, "a tool") == 18


def test_a_free_batch_is_fixed_or_left_free(tmp_path):
    size = torch.export.Dim("size", min=1, max=64)
    program = torch.export.export(network(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: size},))
    torch.export.save(program, tmp_path / "free.pt2")
    out = tmp_path / "out"
    out.mkdir()
    for batch, opset, found in ((1, 13, 1), (4, 18, 4), (None, 18, "s")):
        made = Pt2ToOnnx().convert(tmp_path / "free.pt2", out, ConvertOptions(opset=opset, batch=batch), None).model
        with for_format("onnx").open(Artifact.open(made), RunOptions()) as session:
            size = session.inputs[0].shape[0]
        assert size == found or (found == "s" and isinstance(size, str))
    with pytest.raises(UsageError, match="fixes the batch below opset 18"):
        Pt2ToOnnx().convert(tmp_path / "free.pt2", out, ConvertOptions(opset=17, batch=None), None)


def test_a_fixed_batch_cannot_be_freed(programs, tmp_path):
    with pytest.raises(UsageError, match="has a fixed batch"):
        Pt2ToOnnx().convert(programs / "pictures.pt2", tmp_path, ConvertOptions(batch=None), None)


def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    class Rooted(nn.Module):
        def forward(self, signal):
            return torch.special.bessel_j0(signal)

    write_program(Rooted(), [torch.zeros(1, 4)], tmp_path / "rooted.pt2", "rooted")
    for opset in (13, 18):
        with pytest.raises(EngineError, match="bessel_j0") as caught:
            Pt2ToOnnx().convert(tmp_path / "rooted.pt2", tmp_path, ConvertOptions(opset=opset), None)
        assert "\n" not in caught.value.message


def test_a_module_that_draws_numbers_is_no_program(tmp_path):
    class Noisy(nn.Module):
        def forward(self, signal):
            return signal + torch.rand(4)

    with pytest.raises(EngineError, match="noisy gives other outputs after its export"):
        write_program(Noisy(), [torch.zeros(1, 4)], tmp_path / "noisy.pt2", "noisy")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_program_is_named(tmp_path):
    (tmp_path / "broken.pt2").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(InputError, match=r"broken\.pt2"):
        Pt2ToOnnx().convert(tmp_path / "broken.pt2", tmp_path, ConvertOptions(), None)


def test_the_legacy_exporter_is_the_second_way(tmp_path, monkeypatch):
    import converters.pt2_to_onnx as owner

    def free(_program, _opset):
        pytest.fail("the legacy exporter fixes all sizes")

    monkeypatch.setattr(owner, "_export", refuse)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.GELU()).eval()
    fixed, batches = tmp_path / "fixed.pt2", tmp_path / "free.pt2"
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), fixed)
    sizes = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),), dynamic_shapes=sizes), batches)
    made = owner.Pt2ToOnnx().convert(fixed, tmp_path, ConvertOptions(), None).model
    values = torch.randn(2, 4)
    session = pytest.importorskip("onnxruntime").InferenceSession(str(made))
    assert session.get_inputs()[0].shape == [2, 4]
    (given,) = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    np.testing.assert_allclose(given, module(values).detach().numpy(), atol=1e-5)
    monkeypatch.setattr(owner, "_trace", free)
    with pytest.raises(EngineError, match="the current exporter failed"):
        owner.Pt2ToOnnx().convert(batches, tmp_path, ConvertOptions(batch=None), None)


class Returns(nn.Module):
    """Outputs of all kinds: an input, one tensor twice, and None."""

    def forward(self, signal):
        doubled = signal * 2
        return {"same": signal, "first": doubled, "second": (doubled, None)}


def exported(module, path, *given, sizes=None):
    torch.export.save(torch.export.export(module, given, dynamic_shapes=sizes), path)
    return path


def converted(program, out):
    out.mkdir()
    return Pt2ToOnnx().convert(program, out, ConvertOptions(batch=1), None).model


@pytest.mark.parametrize("opset", [None, 13])
def test_inputs_repeated_tensors_and_none_may_be_outputs(tmp_path, opset):
    program = exported(Returns(), tmp_path / "returns.pt2", torch.zeros(1, 4))
    (tmp_path / "out").mkdir()
    model = Pt2ToOnnx().convert(program, tmp_path / "out", ConvertOptions(opset=opset), None).model
    expected, feeds = answers(program, {"signal": np.arange(4, dtype=np.float32)[None]})
    given, _ = answers(model, feeds)
    assert len(expected) == len(given) == 3
    for mine, other in zip(expected.values(), given.values(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_pooled_convolution_of_three_free_sizes_is_read(tmp_path):
    """Its sizes are products, which PyTorch writes as Mul(Integer(3), Symbol(...), ...)."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    free = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")},)
    program = exported(layers.eval(), tmp_path / "free.pt2", torch.zeros(2, 3, 16, 20), sizes=free)
    feeds = {"input": np.random.default_rng(0).normal(size=(1, 3, 24, 12)).astype(np.float32)}
    expected, _ = answers(program, feeds)
    given, _ = answers(converted(program, tmp_path / "out"), feeds)
    np.testing.assert_allclose(*given.values(), *expected.values(), atol=1e-5)


def test_weights_of_volumes_need_no_layout_of_pictures(tmp_path):
    program = exported(nn.Conv3d(2, 3, 3).eval(), tmp_path / "volume.pt2", torch.zeros(1, 2, 4, 4, 4))
    expected, feeds = answers(program, None)
    given, _ = answers(converted(program, tmp_path / "out"), feeds)
    np.testing.assert_allclose(*given.values(), *expected.values(), atol=1e-5)


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(2, 4))

    def forward(self, signal):
        self.last[0].copy_(signal[0])
        return self.last.sum(0) + (self.last + signal).relu_()


@pytest.mark.parametrize(
    ("module", "buffer"), [(nn.BatchNorm1d(4).train(), "num_batches_tracked"), (Remembers(), "last")]
)
def test_a_program_that_writes_its_buffers_is_refused_by_their_name(tmp_path, module, buffer):
    program = exported(module, tmp_path / "writes.pt2", torch.zeros(2, 4))
    with pytest.raises(InputError, match=f"writes its buffer '{buffer}'") as caught:
        converted(program, tmp_path / "out")
    assert "model.eval()" in caught.value.hint


class Decides(nn.Module):
    def forward(self, signal):
        return torch.cond(signal.sum() > 0, lambda x: x + 1, lambda x: -x, (signal,))


class Finds(nn.Module):
    def forward(self, signal):
        return torch.nonzero(signal > 0)


@pytest.mark.parametrize("module", [Decides(), Finds()])
def test_branches_and_sizes_by_value_are_data(tmp_path, module):
    program = exported(module, tmp_path / "program.pt2", torch.ones(3, 4))
    for sign in (1, -1):
        feeds = {"signal": np.full((3, 4), sign, np.float32)}
        (expected,) = answers(program, feeds)[0].values()
        with torch.no_grad():
            np.testing.assert_array_equal(expected, module(torch.from_numpy(feeds["signal"])).numpy())


def test_an_operator_that_an_exporter_left_unconverted_is_named():
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Bucketize", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(EngineError, match="tf2onnx does not convert the operator Bucketize"):
        check_opset(model, 17, "tf2onnx")


@pytest.mark.parametrize("exporter", ["the current one", "the legacy one"])
def test_a_t5_encoder_is_exported_by_either(tmp_path, monkeypatch, exporter):
    """Its relative positions are looked up in buckets; some releases of the current exporter fail on them."""
    import converters.pt2_to_onnx as owner

    transformers = pytest.importorskip("transformers")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(6)
    small = {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    model = transformers.T5EncoderModel(transformers.T5Config(**small)).eval()
    model.save_pretrained(tmp_path / "t5")
    source = HuggingfaceSource()
    program = source.export(tmp_path / "t5", source.Options(), tmp_path)
    if exporter == "the legacy one":
        monkeypatch.setattr(owner, "_export", refuse)
    session = runtime.InferenceSession(Pt2ToOnnx().convert(program, tmp_path, ConvertOptions(), None).model)
    taken = session.get_inputs()[0]
    for ids in torch.randint(0, 60, (3, *taken.shape)):
        mask = torch.ones_like(ids)
        mask[:, ids.shape[1] // 2 :] = 0
        feeds = {taken.name: ids.numpy(), session.get_inputs()[1].name: mask.numpy()}
        with torch.no_grad():
            expected = model(ids, attention_mask=mask).last_hidden_state
        np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=1e-4)


def refuse(_program, _opset):
    raise EngineError("the current exporter failed")
