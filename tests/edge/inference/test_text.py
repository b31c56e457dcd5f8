"""`edge run` on texts, with a tokenizer beside the model, and embeddings with references."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from edge.inference.texts import MAX_TEXT_BYTES, read_text
from runtimes.errors import EngineMissingError, InputError

WORDS = ["[PAD]", "[UNK]", "good", "bad", "cat", "kitten", "market"]
# The vector of each word: kittens are nearly cats.
TABLE = np.float32([[9, 9, 9], [0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0.1], [0, 1, 0.3], [0, -0.2, 1]])


def write_tokenizer(folder: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: place for place, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def write_encoder(folder: Path, tokens: int | str = "tokens", *, classes: bool = False) -> Path:
    """A model that looks up the vector of each word; with `classes`, the logits of bad and good."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    output = helper.make_tensor_value_info("last_hidden_state", kind.FLOAT, [1, tokens, 3])
    table = TABLE
    if classes:
        nodes.append(helper.make_node("ReduceSum", ["last_hidden_state", "axis"], ["logits"], keepdims=0))
        output = helper.make_tensor_value_info("logits", kind.FLOAT, [1, 2])
        table = np.stack([-TABLE[:, 0], TABLE[:, 0]], axis=1) * (np.arange(len(WORDS)) > 0)[:, None]
    nodes.append(helper.make_node("Identity", ["attention_mask"], ["seen"]))
    inputs = [helper.make_tensor_value_info(name, kind.INT64, [1, tokens]) for name in ("input_ids", "attention_mask")]
    seen = helper.make_tensor_value_info("seen", kind.INT64, [1, tokens])
    constants = [
        onnx.numpy_helper.from_array(table.astype(np.float32), "table"),
        onnx.numpy_helper.from_array(np.int64([1]), "axis"),
    ]
    graph = helper.make_graph(nodes, "encoder", inputs, [output, seen], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")
    write_tokenizer(folder)
    return folder / "m.onnx"


def answers(capsys, *arguments: str) -> list[dict]:
    assert main(["run", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("tokens", ["tokens", 6])
def test_texts_are_compared_by_the_cosines_of_their_embeddings(capsys, tmp_path, tokens):
    model = write_encoder(tmp_path, tokens)
    for name in ("kitten", "market"):
        (tmp_path / f"{name}.txt").write_text(f"good {name}")
    references = [part for name in ("market", "kitten") for part in ("--reference", str(tmp_path / f"{name}.txt"))]
    (row,) = answers(capsys, str(model), "--text", "good cat", *references)
    assert (row["input"], row["task"]) == ("text-1", "embedding")
    np.testing.assert_allclose(row["result"], (TABLE[2] + TABLE[4]) / 2, atol=1e-6)  # padding does not count
    assert [Path(one["reference"]).stem for one in row["similarities"]] == ["kitten", "market"]
    assert row["similarities"][0]["cosine"] > 0.95 > 0.6 > row["similarities"][1]["cosine"]


def test_a_text_is_classified_with_the_folders_own_names(capsys, tmp_path):
    model = write_encoder(tmp_path, classes=True)
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "negative", "1": "positive"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    happy, sad = answers(capsys, str(model), "--text", "good good cat", "--text", "bad cat")
    assert (happy["task"], happy["result"][0]["label"]) == ("text", "positive")
    assert happy["result"][0]["score"] == pytest.approx(1 / (1 + np.exp(-4)))
    assert sad["result"][0]["label"] == "negative"


def test_pooling_and_length_are_those_of_sentence_transformers(capsys, tmp_path):
    model = write_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"path": f"{place}_{kind}", "type": f"sentence_transformers.models.{kind}"} for place, kind in enumerate(kinds)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}))
    with edge.open(model) as opened:
        prepared = opened.prepare(takes_pictures=False)
        assert (prepared.decoder.takes_first, prepared.decoder.is_normalized, prepared.max_tokens) == (True, True, 2)
        (tmp_path / "a.txt").write_text("market cat cat cat cat")
        (answer,) = opened.predictions([tmp_path / "a.txt"])
    np.testing.assert_allclose(answer.result.vector, TABLE[6] / np.linalg.norm(TABLE[6]), atol=1e-6)
    assert answer.outputs["seen"].shape == (1, 2)


def test_the_tokenizer_and_the_task_travel_with_the_artifact(capsys, tmp_path):
    model = write_encoder(tmp_path, 6)
    out = tmp_path / "converted"
    assert main(["convert", str(model), "--to", "onnx", "--out", str(out)]) == 0
    assert "tokenizer.json" in json.loads((out / "manifest.json").read_text())["files"]
    capsys.readouterr()
    (row,) = answers(capsys, str(out), "--text", "good cat")
    np.testing.assert_allclose(row["result"], (TABLE[2] + TABLE[4]) / 2, atol=1e-6)


def test_a_picture_has_an_embedding_that_is_compared_too(capsys, tmp_path):
    onnx, pillow = pytest.importorskip("onnx"), pytest.importorskip("PIL.Image")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.random.default_rng(1).normal(size=(16, 3, 1, 1)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])]
    inputs, outputs = (
        [helper.make_tensor_value_info(*one)] for one in (("x", kind, [1, 3, 8, 8]), ("y", kind, [1, 16, 1, 1]))
    )
    graph = helper.make_graph(nodes, "features", inputs, outputs, [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "f.onnx")
    for name, color in (("red", (200, 0, 0)), ("dark-red", (90, 0, 0)), ("blue", (0, 0, 200))):
        pillow.new("RGB", (20, 20), color).save(tmp_path / f"{name}.png")
    raw = ["--mean", "0", "--scale", "1"]
    references = ["--reference", str(tmp_path / "blue.png"), "--reference", str(tmp_path / "dark-red.png")]
    (row,) = answers(capsys, str(tmp_path / "f.onnx"), str(tmp_path / "red.png"), *raw, *references)
    assert row["task"] == "embedding"
    assert [Path(one["reference"]).stem for one in row["similarities"]] == ["dark-red", "blue"]
    assert row["similarities"][0]["cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a" * 10_000_000, "has 10,000,000 bytes; the limit is 1,048,576"),
        (b"\xff\xfe\x00", "is not a text in UTF-8"),
    ],
)
def test_a_text_that_cannot_be_read_is_one_line(tmp_path, content, words):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_text(tmp_path / "a.txt")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert len((tmp_path / "a.txt").read_bytes()) > MAX_TEXT_BYTES or b"\xff" in content


def test_what_is_missing_is_named(capsys, tmp_path, monkeypatch):
    model = write_encoder(tmp_path)
    assert main(["run", str(model), "--text", ""]) == 3
    assert "contains no text" in capsys.readouterr().err
    (tmp_path / "tokenizer.json").write_text("{}")
    assert main(["run", str(model), "--text", "cat"]) == 3
    assert "is not a readable tokenizer" in capsys.readouterr().err
    monkeypatch.setattr("edge.inference.texts.find_spec", lambda _: None)
    (tmp_path / "a.txt").write_text("cat")
    with edge.open(model) as opened, pytest.raises(EngineMissingError) as caught:
        opened.predict(tmp_path / "a.txt")
    assert "edgeproof[text]" in caught.value.hint
    (tmp_path / "tokenizer.json").unlink()
    assert main(["run", str(model), "--text", "cat"]) == 3
    assert "has no tokenizer.json next to it" in capsys.readouterr().err


def test_a_reference_needs_an_embedding(capsys, tmp_path):
    model = write_encoder(tmp_path, classes=True)
    options = ["--task", "text", "--reference", str(tmp_path / "a.txt")]
    (tmp_path / "a.txt").write_text("cat")
    assert main(["run", str(model), "--text", "cat", *options]) == 2
    assert "--reference compares embeddings; the task of this model is text" in capsys.readouterr().err
