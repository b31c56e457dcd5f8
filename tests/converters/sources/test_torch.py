"""PyTorch models other than exported programs: recognized without PyTorch, exported, and compared with the export."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters.pytorch.inputs import TorchInput, TorchOptions, read_input
from converters.sources import source_of
from converters.sources.module import ModuleOptions
from converters.sources.source import Export
from converters.sources.torchscript import unsafe_operation
from runtimes.artifact import Artifact
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions

torch = pytest.importorskip("torch")
nn = torch.nn

NETS = """
import torch
from torch import nn


def network():
    layers = [nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU6(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * 49, 5), nn.Softmax(-1))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids, scale):
        return {"scaled": self.table(ids) * scale}


class Listed(nn.Module):
    def forward(self, signal):
        return signal, 3


number = 3


def broken():
    raise ValueError("no weights here")
"""
OLD = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def nets(tmp_path, monkeypatch, request):
    """The name of a module in the working folder, fresh for each test."""
    name = f"nets_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def recognize(model: Path, inputs=(), weights=None) -> Export:
    """What a command opens, with these options."""
    source = source_of(model)
    given = {"inputs": tuple(inputs), **({"weights": weights} if source.Options is ModuleOptions else {})}
    export = source.open(model, source.Options(**given)).export
    assert export is not None
    return export


def network(seed=0):
    torch.manual_seed(seed)
    space: dict = {}
    exec(NETS, space)
    return space["network"]().eval()


def answer(program: Path, *values):
    """What an exported program answers, opened as any model is."""
    with for_format("pt2").open(Artifact.open(program), RunOptions()) as session:
        feeds = {spec.name: value for spec, value in zip(session.inputs, values, strict=True)}
        return session.run(feeds)


def is_same(program: Path, module) -> bool:
    values = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)
    (given,) = answer(program, values).values()
    with torch.no_grad():
        return bool(np.abs(given - module(torch.from_numpy(values)).numpy()).max() < 1e-6)


@pytest.mark.parametrize(
    ("text", "name", "shape", "dtype"),
    [
        ("1x3x224x224", None, (1, 3, 224, 224), "float32"),
        ("ids=1x128:int64", "ids", (1, 128), "int64"),
        ("7:uint8", None, (7,), "uint8"),
        ("rate=:int64", "rate", (), "int64"),
    ],
)
def test_inputs_are_read(text, name, shape, dtype):
    assert read_input(text) == TorchInput(name=name, shape=shape, dtype=dtype)


@pytest.mark.parametrize("text", ["", "axb", "1x", "1x3:string", "=1x3", "1,3", "a b=1", "-1x3", "1x3:int64:"])
def test_inputs_that_cannot_be_understood(text):
    with pytest.raises(UsageError, match="is malformed") as caught:
        read_input(text)
    assert "ids=1x128:int64" in caught.value.hint


@OLD
@pytest.mark.parametrize("way", ["script", "trace", "freeze"])
def test_torchscript_is_recognized_by_its_content(tmp_path, way):
    module = network()
    made = torch.jit.trace(module, torch.randn(1, 3, 16, 16)) if way == "trace" else torch.jit.script(module)
    torch.jit.save(torch.jit.freeze(made) if way == "freeze" else made, tmp_path / "model.pt")
    source = recognize(tmp_path / "model.pt", ["1x3x16x16"])
    assert (source.source.id, source.path) == ("torchscript", tmp_path / "model.pt")
    program = source.run(tmp_path)
    assert program == tmp_path / "model.pt2"
    assert is_same(program, module)


def test_a_module_is_made_by_the_users_own_code(nets, tmp_path):
    source = recognize(Path(f"{nets}:network"), ["1x3x16x16"])
    assert (source.source.id, source.origin()["sha256"]) == ("module", "unknown")
    assert "runs its Python code" in source.description
    assert is_same(source.run(tmp_path), network())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_its_weights_come_without_pickle(nets, tmp_path, suffix):
    module = network(seed=9)
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(module.state_dict(), weights)
    else:
        pytest.importorskip("safetensors.torch").save_file(module.state_dict(), weights)
    source = recognize(Path(f"{nets}:network"), ["1x3x16x16"], weights)
    assert len(source.origin()["sha256"]) == 64
    assert is_same(source.run(tmp_path), module)


def test_inputs_and_outputs_by_name(nets, tmp_path):
    source = recognize(Path(f"{nets}:Scaled"), ["ids=1x6:int64", "scale=1x6x4"])
    found = answer(source.run(tmp_path), np.ones((1, 6), np.int64), np.ones((1, 6, 4), np.float32))
    assert list(found) == ["scaled"]


def test_a_pickle_as_weights_is_not_opened(nets, tmp_path):
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    source = recognize(Path(f"{nets}:network"), ["1x3x16x16"], tmp_path / "weights.pt")
    with pytest.raises(InputError, match="not unpickled"):
        source.run(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_network(nets, tmp_path):
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    source = recognize(Path(f"{nets}:network"), ["1x3x16x16"], tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"size mismatch for 0\.weight") as caught:
        source.run(tmp_path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("attribute", "error", "message"),
    [
        ("broken", InputError, "no weights here"),
        ("number", InputError, "returns a int, not a torch.nn.Module"),
        ("nothing", InputError, "cannot be imported"),
        ("Listed", EngineError, "not only tensors"),
    ],
)
def test_what_is_no_network_is_reported(nets, tmp_path, attribute, error, message):
    source = recognize(Path(f"{nets}:{attribute}"), ["1x3x16x16"])
    with pytest.raises(error, match=message) as caught:
        source.run(tmp_path)
    assert "\n" not in caught.value.message
    assert not list(tmp_path.glob("*.pt2"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ts", ".torchscript"])
def test_a_pickle_by_any_name_is_refused_and_not_opened(tmp_path, suffix):
    for number, archive in enumerate((False, True)):
        path = tmp_path / f"model{number}{suffix}"
        content = pickle.dumps(Trap(tmp_path / "sprung"))
        if archive:
            with zipfile.ZipFile(path, "w") as zipped:
                zipped.writestr("model/data.pkl", content)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match="is never opened"):
            recognize(path, ["1x3"])
    assert not (tmp_path / "sprung").exists()


@OLD
def test_a_pickle_inside_torchscript_is_not_opened(tmp_path):
    torch.jit.save(torch.jit.script(network()), tmp_path / "good.pt")
    content = pickle.dumps(Trap(tmp_path / "sprung"), protocol=2)
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(tmp_path / "evil.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(".pkl") else old.read(name))
    source = recognize(tmp_path / "evil.pt", ["1x3x16x16"])
    with pytest.raises(InputError, match=r"evil\.pt") as caught:
        source.run(tmp_path)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "sprung").exists()


@OLD
def test_torchscript_that_writes_files_needs_trust(tmp_path):
    torch.jit.save(torch.jit.script(network()), tmp_path / "good.pt")
    place = tmp_path / "written"
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(tmp_path / "evil.pt", "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if "/code/" in name and name.endswith(".py"):
                text = text.replace(b"    return", f'    torch.save(1, "{place}")\n    return'.encode())
            new.writestr(name, text)
    with pytest.raises(InputError, match="calls 'save'") as caught:
        recognize(tmp_path / "evil.pt", ["1x3x16x16"]).run(tmp_path)
    assert "--trust" in caught.value.hint
    assert not place.exists()


@pytest.mark.parametrize(
    "code",
    [
        'torch.save(x, "f")',
        'x.save ("f")',
        'ops.aten.save(x, "f")',
        'torch.from_file("f")',
        "ops.c10d.barrier(x)",
        "__torch__.torch.classes.dist_c10d.TCPStore",
        "ops.prim.rpc_async(x)",
    ],
)
def test_what_reaches_out(code):
    assert unsafe_operation(["return torch.relu(x)", code])


@pytest.mark.parametrize("code", ["torch.conv2d(x, w)", "ops.prim.NumToTensor(1)", "ops.quantized.linear(x)", "saved"])
def test_what_only_computes(code):
    assert unsafe_operation([code]) is None


def test_options_belong_to_their_models(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"x")
    assert source_of(model).id == "artifact"
    with pytest.raises(UsageError, match="does not contain the shapes"):
        recognize(Path("package.module:make"))
    with pytest.raises(UsageError, match="some inputs have a name"):
        recognize(Path("package.module:make"), ["a=1x3", "1x3"])
    with pytest.raises(InputError, match=r"gone\.pt does not exist"):
        recognize(Path("package.module:make"), ["1x3"], tmp_path / "gone.pt")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two encoders of Hugging Face, of a small configuration and random weights."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    folder = tmp_path_factory.mktemp("folders")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(2)
    text = transformers.BertModel(transformers.BertConfig(vocab_size=50, max_position_embeddings=32, **small))
    text.save_pretrained(folder / "text")
    way = {"image_size": 16, "patch_size": 8, "num_labels": 5, **small}
    transformers.ViTForImageClassification(transformers.ViTConfig(**way)).save_pretrained(folder / "pictures")
    return folder


def test_an_encoder_of_text(folders, tmp_path):
    source = recognize(folders / "text")
    assert (source.source.id, source.path, source.options) == ("huggingface", folders / "text", TorchOptions())
    given = answer(source.run(tmp_path), np.ones((1, 32), np.int64), np.ones((1, 32), np.int64))
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(folders / "text").eval()
    with torch.no_grad():
        expected = model(torch.ones(1, 32, dtype=torch.int64), torch.ones(1, 32, dtype=torch.int64))
    assert set(given) == {"last_hidden_state", "pooler_output"}
    np.testing.assert_allclose(given["pooler_output"], expected.pooler_output.numpy(), atol=1e-5)


def test_an_encoder_of_pictures(folders, tmp_path):
    source = recognize(folders / "pictures")
    given = answer(source.run(tmp_path), np.ones((1, 3, 16, 16), np.float32))
    assert {name: value.shape for name, value in given.items()} == {"logits": (1, 5)}


def test_another_length_can_be_asked_for(folders, tmp_path):
    source = recognize(folders / "text", ["input_ids=1x8:int64"])
    assert answer(source.run(tmp_path), np.ones((1, 8), np.int64))["last_hidden_state"].shape == (1, 8, 16)


@pytest.mark.parametrize(
    ("changes", "files", "message", "hint"),
    [
        ({"auto_map": {"AutoModel": "code.Net"}}, ["model.safetensors"], "needs its own code", "module:callable"),
        ({}, ["pytorch_model.bin"], "pickled weights", "safetensors"),
        ({}, [], "no model.safetensors", "save_pretrained"),
        ({"architectures": ["Nonsense"]}, ["model.safetensors"], "has no Nonsense", "upgrade"),
        ({"architectures": ["GPT2LMHeadModel"]}, ["model.safetensors"], "generates text", "gguf"),
        ({}, ["model.safetensors"], "cannot be read as", "damaged"),
    ],
)
def test_folders_that_are_refused(tmp_path, changes, files, message, hint):
    pytest.importorskip("transformers")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"], **changes}))
    for name in files:
        (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    source = recognize(folder)
    with pytest.raises(InputError, match=message) as caught:
        source.run(tmp_path)
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert not (tmp_path / "sprung").exists()


@OLD
@pytest.mark.parametrize("container", [tuple, list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_torchscript_returns_several_tensors(tmp_path, container):
    class Both(nn.Module):
        def forward(self, signal):
            return container((signal.relu(), signal * 2))

    torch.jit.trace(Both(), torch.zeros(1, 4), strict=False).save(tmp_path / "both.pt")
    (tmp_path / "out").mkdir()
    program = recognize(tmp_path / "both.pt", ["1x4"]).run(tmp_path / "out")
    values = np.array([[-1, 0, 1, 2]], np.float32)
    relu, double = answer(program, values).values()
    np.testing.assert_array_equal(relu, np.maximum(values, 0))
    np.testing.assert_array_equal(double, values * 2)


@OLD
@pytest.mark.parametrize("shape", ["1x3x9x9", "1x3x16x16:float64"])
def test_inputs_that_the_model_does_not_run_with_are_named(tmp_path, nets, shape):
    torch.jit.trace(network(), torch.zeros(1, 3, 16, 16)).save(tmp_path / "net.pt")
    for model in (tmp_path / "net.pt", Path(f"{nets}:network")):
        with pytest.raises(InputError, match="does not run with inputs of 1x3x") as caught:
            recognize(model, [shape]).run(tmp_path)
        assert "--input" in caught.value.hint
        assert "\n" not in caught.value.message
        assert "operation failed" not in caught.value.message
