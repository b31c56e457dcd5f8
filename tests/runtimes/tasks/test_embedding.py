"""Embeddings of pictures and of texts, and their cosines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.model_files.facts import READ, Labels, ModelFacts
from runtimes.tasks import recognize
from runtimes.tasks.embedding import Embedding, EmbeddingTask, FeatureVector, TokenVectors
from runtimes.testing.task_contract import TaskContract, TaskExample

RNG = np.random.default_rng(3)
VECTOR, OTHER = RNG.normal(size=(2, 1, 32)).astype(np.float32)


def pooled(*shape, operator="AVERAGE_POOL_2D", **known):
    picture = TensorSpec("x", "uint8", (1, 8, 8, 3))
    output = TensorSpec("y", "float32", shape or (1, 32))
    return ModelFacts("m", "tflite", (picture,), (output,), output_operator=operator, **known)


def encoder(name="last_hidden_state", tokens="tokens", size=4, **known):
    inputs = tuple(TensorSpec(one, "int64", ("batch", tokens)) for one in ("input_ids", "attention_mask"))
    return ModelFacts("m", "onnx", inputs, (TensorSpec(name, "float32", ("batch", tokens, size)),), **known)


def tokens(*rows, mask=None):
    array = np.float32([rows])
    mask = np.ones((1, len(rows)), np.int64) if mask is None else np.int64([mask])
    return {"last_hidden_state": array, "attention_mask": mask}


class TestContract(TaskContract):
    task = EmbeddingTask()
    examples = (
        TaskExample(pooled(), {"y": VECTOR}, {"y": OTHER}),
        TaskExample(encoder(), tokens((1, 2, 3, 4), (3, 2, 1, 0)), tokens((-1, 0, 3, 0), (0, 2, 0, -4))),
    )
    foreign = (
        pooled(operator="Softmax"),
        pooled(1, 4),  # four numbers may be anything
        pooled(1, 4, 4, 32),
        pooled(labels=Labels(tuple(map(str, range(32))), "the file", READ)),
        encoder("logits"),
        replace(encoder(), inputs=pooled().inputs),
        ModelFacts("m", "onnx"),
    )


def decoded(model, outputs):
    task, decoder = recognize(model)
    return task.decode(outputs, decoder)


def test_what_the_user_names_needs_no_proof():
    found = EmbeddingTask().recognize(pooled(1, 4, operator=None, task="embedding"))
    assert isinstance(found, FeatureVector)
    assert found.assumptions == ()
    assert isinstance(EmbeddingTask().recognize(encoder("anything", task="embedding")), TokenVectors)


def test_a_text_is_the_mean_of_its_tokens_and_padding_does_not_count():
    outputs = tokens((2, 0, 0, 0), (0, 4, 0, 0), (9, 9, 9, 9), mask=(1, 1, 0))
    np.testing.assert_allclose(decoded(encoder(), outputs).vector, [1, 2, 0, 0])
    first = encoder(metadata={"pooling": "first", "normalized": "true"})
    np.testing.assert_allclose(decoded(first, outputs).vector, [1, 0, 0, 0])
    assert TokenVectors.recognize(first).assumptions == ()
    assert "(--task)" in TokenVectors.recognize(encoder()).assumptions[0]


def test_the_mask_is_read_beside_the_outputs():
    assert TokenVectors.recognize(encoder()).reads() == ("attention_mask",)
    assert FeatureVector.recognize(pooled()).reads() == ()


def test_cosines_to_references_come_most_similar_first():
    one = Embedding(np.float32([1, 0]))
    found = one.compared({"across": Embedding(np.float32([0, 3])), "same": Embedding(np.float32([2, 0]))})
    assert [(each.reference, each.cosine) for each in found.similarities] == [("same", 1.0), ("across", 0.0)]
    assert one.cosine(Embedding(np.float32([-5, 0]))) == -1.0
    assert one.cosine(Embedding(np.float32([0, 0]))) == 0.0
    with pytest.raises(UsageError):
        one.cosine(Embedding(np.float32([1, 0, 0])))


def test_two_vectors_of_zeros_agree_and_one_does_not_with_another():
    nothing, something = Embedding(np.zeros(2, np.float32)), Embedding(np.float32([1, 0]))
    assert EmbeddingTask().compare(nothing, nothing).agrees
    assert not EmbeddingTask().compare(nothing, something).agrees


@pytest.mark.parametrize(
    ("model", "outputs", "words"),
    [
        (pooled(), {"y": np.full((1, 32), np.nan, np.float32)}, "NaN"),
        (pooled(), {"y": VECTOR[:, :5]}, "holds 5 numbers"),
        (encoder(), tokens((1, 2, 3, 4), mask=(0,)), "masks 1 tokens"),
        (encoder(), {**tokens((1, 2, 3, 4)), "last_hidden_state": np.zeros((1, 0, 4), np.float32)}, "each token"),
    ],
)
def test_outputs_that_cannot_be_embeddings_are_refused(model, outputs, words):
    with pytest.raises(InputError) as caught:
        decoded(model, outputs)
    assert words in caught.value.message
