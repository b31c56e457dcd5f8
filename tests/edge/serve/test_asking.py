"""Request bodies: what is read, what is refused, and that the field is named."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.serve.asking import chat_ask, text_ask
from edge.serve.problems import Problem

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def test_everything_that_is_understood() -> None:
    ask = chat_ask(
        {
            "model": "stories", "stream": True, "stream_options": {"include_usage": True}, "n": 1, "user": "me",
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "you"}]},
            ],
            "max_completion_tokens": 5, "temperature": 0, "top_p": 1, "seed": -1, "presence_penalty": -2,
            "frequency_penalty": 2, "stop": "end", "logprobs": False, "tools": [], "logit_bias": {},
        }
    )  # fmt: skip
    assert ask.messages == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello, you"}]
    assert (ask.model, ask.streams, ask.wants_usage, ask.stops) == ("stories", True, True, ("end",))
    options = ask.options
    assert (options.max_tokens, options.temperature, options.top_p, options.seed) == (5, 0, 1, 2**32 - 1)
    assert (options.presence_penalty, options.frequency_penalty) == (-2, 2)


def test_null_is_absence() -> None:
    ask = chat_ask({**HELLO, "max_tokens": None, "stop": None, "temperature": None, "tools": None, "unknown": None})
    assert (ask.options.max_tokens, ask.stops) == (None, ())


def test_completions_have_openais_default_length() -> None:
    assert text_ask({"prompt": "a"}).options.max_tokens == 16
    assert text_ask({"prompt": "a", "max_tokens": 0}).options.max_tokens == 0


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("a", "a"), (["a"], "a"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2])],
)
def test_prompts(prompt, read) -> None:
    assert text_ask({"prompt": prompt}).prompt == read


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, '{"type": "object"}'),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}, '{"type": "array"}'),
    ],
)
def test_response_formats(form, schema) -> None:
    assert chat_ask({**HELLO, "response_format": form}).options.json_schema == schema


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": ["hello"]}, "messages[0]"),
    ],
)
def test_what_is_refused_names_its_field(more, param) -> None:
    with pytest.raises(Problem) as caught:
        chat_ask({**HELLO, **more})
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_misspelt_word_is_guessed() -> None:
    with pytest.raises(Problem, match="did you mean 'temperature'"):
        chat_ask({**HELLO, "temprature": 1})


@pytest.mark.parametrize("prompt", [None, [], 5, ["a", "b"], [True], [1, "a"], {}])
def test_prompts_that_are_none(prompt) -> None:
    with pytest.raises(Problem) as caught:
        text_ask({"prompt": prompt})
    assert caught.value.param == "prompt"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["messages", "prompt", "stop", "n", "seed", "stream", "stream_options", "response_format", "top_k", "grammar", "x"]
)


@given(JSON | st.dictionaries(KEYS, JSON))
def test_any_body_is_read_or_refused(body) -> None:
    for read in (chat_ask, text_ask):
        with suppress(Problem):  # and nothing else
            assert read(body).options is not None
