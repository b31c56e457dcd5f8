"""Request bodies for llama-server: what is changed, what is refused, and that the field is named."""

import base64
import io
import json
import re
import zlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.llm.builtin_templates import NAMED
from edge.serve.errors import ApiError
from edge.serve.pictures import with_checked_pictures
from edge.serve.requests import GENERATING, RENDERING, read_request
from edge.serve.template_guard import TemplateGuard

CHAT, TEXT, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
MARKS = re.compile(r"<\|im_end\|>|<s>")


def read(body: object, path: str = CHAT, **more):
    return read_request(path, json.dumps(body).encode(), **more)


def sent(body: object, path: str = CHAT, **more) -> dict:
    return json.loads(read(body, path, **more).content)


def test_what_needs_no_change_is_passed_on_byte_for_byte() -> None:
    body = json.dumps(
        {
            **HELLO, "stream": True, "n": 2, "logprobs": True, "top_logprobs": 3, "logit_bias": {"5": 1}, "user": "me",
            "store": False, "never_heard_of": {"a": 1}, "temperature": None, "max_tokens": -1, "num_ctx": 9,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            "reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}, "stop": "end",
        },
        indent=1,
    ).encode()  # fmt: skip
    request = read_request(CHAT, body)
    assert request.content == body
    assert request.streams


def test_other_paths_are_not_read() -> None:
    assert read_request("/tokenize", b"\xff no JSON").content == b"\xff no JSON"


def test_completions_have_openais_default_length() -> None:
    assert sent({"prompt": "a"}, TEXT)["max_tokens"] == 16
    assert "max_tokens" not in sent({"prompt": "a", "n_predict": 4}, TEXT)
    assert "max_tokens" not in sent(HELLO)


def test_what_asks_for_nothing_is_left_out_where_llama_server_would_refuse_it() -> None:
    left = sent({"prompt": "a", "best_of": 1, "suffix": "", "echo": False, "functions": [], "max_tokens": 1}, TEXT)
    assert left == {"prompt": "a", "max_tokens": 1}


def test_stops_of_the_template_are_added_to_those_of_the_client() -> None:
    assert sent({**HELLO, "stop": "a"}, stops=("b",))["stop"] == ["a", "b"]
    assert sent(HELLO, stops=("b",))["stop"] == ["b"]
    assert "stop" not in sent({"prompt": "a"}, TEXT, stops=("b",))


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("one", "two")]


def test_a_tool_that_is_named_is_the_only_one_and_has_to_be_called() -> None:
    found = sent({**HELLO, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "two"}}})
    assert (found["tools"], found["tool_choice"]) == (TOOLS[1:], "required")
    choice = {"type": "tool", "name": "one"}
    anthropic = {**HELLO, "tools": [{"name": "one", "input_schema": {}}], "tool_choice": choice}
    assert sent(anthropic, MESSAGES)["tool_choice"] == {"type": "any"}
    with pytest.raises(ApiError, match="not among the tools"):
        read({**HELLO, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "three"}}})


def test_no_text_speaks_with_the_templates_marks() -> None:
    messages = [
        {"role": "system", "content": "<s>"},
        {"role": "user", "content": [{"type": "text", "text": "a<|im_end|>"}]},
        {"role": "assistant", "content": "<|im_end|>"},
        {"role": "tool", "content": "<|im_end|>"},
    ]
    found = sent({"messages": messages}, marks=MARKS)["messages"]
    assert [message["content"] for message in found] == [
        "<\u200bs>", [{"type": "text", "text": "a<\u200b|im_end|>"}], "<|im_end|>", "<\u200b|im_end|>",
    ]  # fmt: skip
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "<s>"}]}
    found = sent({"system": "<s>", "messages": [result]}, MESSAGES, marks=MARKS)
    assert MARKS.search(json.dumps(found)) is None
    found = sent({"input": [{"role": "user", "content": "<s>"}], "instructions": "<s>"}, "/v1/responses", marks=MARKS)
    assert MARKS.search(json.dumps(found)) is None


def test_the_template_is_tried_with_what_it_will_get() -> None:
    found = read({**HELLO, "tools": TOOLS})
    assert (found.conversation, found.tools) == (tuple(HELLO["messages"]), tuple(TOOLS))
    found = read({"input": "Hello", "instructions": "Be short."}, "/v1/responses").conversation
    assert [message["role"] for message in found] == ["system", "user"]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": "all"}, "tools"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"chat_template_kwargs": "no"}, "chat_template_kwargs"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"multipleOf": 5}}}}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": {"uniqueItems": True}}}, "response_format"),
        ({"json_schema": {"not": {}}}, "json_schema"),
        ({"grammar": "x" * 300_000}, "grammar"),
        ({"tools": "x"}, "tools"),
        ({"tools": [{}, 3]}, "tools[1]"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [3]}]}, "messages[0].tool_calls[0]"),
        ({"messages": []}, "messages"),
        ({"messages": 5}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"logit_bias": {"5": "x"}}, "logit_bias"),
        ({"logit_bias": [[5, True]]}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"reasoning_effort": 5}, "reasoning_effort"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
    ],
)
def test_what_is_refused_names_its_field(more, param) -> None:
    with pytest.raises(ApiError) as caught:
        read({**HELLO, **more})
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("address", ["http://10.0.0.1/a.png", " HTTPS://example.org/a.png", "file:///etc/passwd"])
def test_a_picture_elsewhere_is_not_fetched(address) -> None:
    part = {"type": "image_url", "image_url": {"url": address}}
    with pytest.raises(ApiError, match="data: address"):
        read({"messages": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "image", "source": {"url": "http://a/b"}}]}]}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http:a"}]}]}),
        ("/embeddings", {"content": [{"type": "image_url", "image_url": {"url": "httpx"}}]}),
        ("/v1/responses", {"input": [{"content": [{"output": [{"input_audio": {"data": "file:///a"}}]}]}]}),
    ],
)
def test_nor_is_one_of_another_interface(path, body) -> None:
    with pytest.raises(ApiError, match="data: address"):
        read(body, path)


def test_a_tool_may_have_a_parameter_of_that_name() -> None:
    parameters = {"image_url": {"type": "string", "description": "https://example.org"}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": parameters}}}]
    assert sent({**HELLO, "tools": tools})["tools"] == tools


def picture_of(form: str) -> bytes:
    image, stream = pytest.importorskip("PIL.Image"), io.BytesIO()
    image.new("RGB", (6, 4), (200, 10, 10)).save(stream, form)
    return stream.getvalue()


def test_a_picture_is_written_again_in_every_interface() -> None:
    text = base64.b64encode(picture_of("JPEG")).decode()
    address = f"data:image/jpeg;base64,{text}"
    for part in (
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "input_image", "image_url": address},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": text}},
    ):
        left = with_checked_pictures(json.dumps({"messages": [{"content": [part, {"text": "a"}]}]}).encode()).decode()
        assert text not in left
        assert base64.b64encode(b"\x89PNG\r\n").decode() in left
    prompt = {"prompt_string": "a", "multimodal_data": [text]}
    assert text not in with_checked_pictures(json.dumps({"prompt": prompt}).encode()).decode()


@pytest.mark.parametrize("bias", [{"5": 1, "Hello": -100.0, "7": False}, [[5, 1], ["Hello", False]]])
def test_a_bias_is_numbers_in_either_form(bias) -> None:
    assert sent({**HELLO, "logit_bias": bias})["logit_bias"] == bias


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("parts", "is_at_end"),
    [
        ([{"type": "text", "text": "a"}, PICTURE], True),
        ([PICTURE, {"type": "text", "text": ""}], True),  # llama-server sees no text here
        ([PICTURE, {"type": "text", "text": "a"}], False),
        ([{"type": "text", "text": "a"}], False),
    ],
)
def test_a_picture_at_the_end_is_known(parts, is_at_end) -> None:
    assert read({"messages": [{"role": "user", "content": parts}]}).ends_with_picture is is_at_end


def test_a_template_has_the_functions_and_the_time_that_llama_server_passes() -> None:
    guard = TemplateGuard(None)
    try:
        guard.watch("{{ 'You may call ' + functions + '. Today is ' + datetime + messages[0].content }}")
        assert not guard.problem
        guard.check(({"role": "user", "content": "what?"},), ({"type": "function"},))
        guard.watch("{{ messages[0].content + unknown }}")
        assert "unknown" in guard.problem
    finally:
        guard.close()


def test_only_a_template_that_writes_nothing_after_it_refuses_it() -> None:
    question = ({"role": "user", "content": "what?"},)
    for name, named in NAMED.items():
        guard = TemplateGuard(named.text)
        try:
            if name == "plain":
                with pytest.raises(ApiError, match="put the text after it"):
                    guard.check_picture_at_end(question)
            else:
                guard.check_picture_at_end(question)
        finally:
            guard.close()


@pytest.mark.parametrize(("prompt", "is_refused"), [("a <__media_x1Y__>", True), ("<__media_x1Y__> a", False)])
def test_nor_may_the_prompt_of_a_completion_end_with_one(prompt, is_refused) -> None:
    media = [base64.b64encode(picture_of("PNG")).decode()]
    body = json.dumps({"prompt": {"prompt_string": prompt, "multimodal_data": media}}).encode()
    if is_refused:
        with pytest.raises(ApiError, match="put the text after it"):
            with_checked_pictures(body)
    else:
        with_checked_pictures(body)


def test_without_pictures_the_body_stays() -> None:
    body = json.dumps(HELLO, indent=1).encode()
    assert with_checked_pictures(body) == body


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("data:image/png;base64,AAAA", "cannot be read as a picture"),
        ("data:image/png;base64,!", "not base64"),
        ("data:text/html;base64,AAAA", "not a picture"),
        ("AAAA", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(address, told) -> None:
    body = {"messages": [{"content": [{"type": "image_url", "image_url": {"url": address}}]}]}
    with pytest.raises(ApiError, match=told) as caught:
        with_checked_pictures(json.dumps(body).encode())
    assert caught.value.param == "messages[0].content[0]"


def test_a_picture_of_many_pixels_is_refused_before_it_is_decoded() -> None:
    content = bytearray(picture_of("PNG"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    body = {"messages": [{"content": [{"type": "image_url", "image_url": {"url": address}}]}]}
    with pytest.raises(ApiError, match="pixels"):
        with_checked_pictures(json.dumps(body).encode())


def test_tool_calls_and_their_results_are_passed_on() -> None:
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "a", "content": "4"},
        {"role": "assistant", "content": "It is"},
    ]
    assert sent({"messages": messages})["messages"] == messages


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["messages", "prompt", "stop", "n", "response_format", "grammar", "tools", "tool_choice", "input", "system"]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # says how busy the machine is
@given(JSON | st.dictionaries(KEYS, JSON), st.sampled_from([*GENERATING, *RENDERING]))
def test_any_body_is_read_or_refused(body, path) -> None:
    with suppress(ApiError):  # and nothing else
        assert read(body, path, stops=("a",), marks=MARKS).content


@pytest.mark.parametrize(
    "more",
    [
        {"json_schema": {"type": "boolean"}},
        {"response_format": {"type": "json_object", "schema": {"type": "boolean"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "boolean"}}}},
    ],
)
def test_outside_chats_a_schema_becomes_a_grammar(more) -> None:
    fields = json.loads(read_request("/v1/completions", json.dumps({"prompt": "Is it so?", **more}).encode()).content)
    assert "response_format" not in fields
    assert "json_schema" not in fields
    assert "root ::= boolean" in fields["grammar"]


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "schema": {"not": {}}}}}, "text.format"),
        ("/v1/responses", {"text": {"format": {"type": "json_schema"}}}, "text.format"),
        (MESSAGES, {**HELLO, "output_format": {"type": "json_schema", "schema": {}}}, "output_format"),
        (MESSAGES, {**HELLO, "output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
        ("/v1/completions", {"prompt": "a", "grammar": 'root ::= "a"', "json_schema": {}}, "grammar"),
    ],
)
def test_what_would_be_dropped_in_silence_is_refused(path, more, param) -> None:
    with pytest.raises(ApiError) as caught:
        read_request(path, json.dumps(more).encode())
    assert (caught.value.status, caught.value.param) == (400, param)


def test_the_schema_of_responses_is_that_of_chats() -> None:
    form = {"type": "json_schema", "name": "old", "schema": {"type": "boolean"}, "strict": True}
    fields = sent({"input": "Old?", "text": {"format": form, "verbosity": "low"}}, "/v1/responses")
    inner = {"name": "old", "schema": {"type": "boolean"}}
    assert fields == {"input": "Old?", "response_format": {"type": "json_schema", "json_schema": inner}}
    plain = {"input": "Old?", "text": {"format": {"type": "text"}}}
    assert sent(plain, "/v1/responses") == plain


def test_thoughts_are_switched_off_in_messages_too() -> None:
    fields = sent({**HELLO, "thinking": {"type": "disabled"}}, MESSAGES)
    assert fields["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in sent({**HELLO, "thinking": {"type": "enabled"}}, MESSAGES)
