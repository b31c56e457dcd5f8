"""The real openai client against `edge serve` with the real engine and a real model."""

import base64
import json
from pathlib import Path

import pytest

STORY = "Once upon a time, there was a little girl named Lily."
USER = {"role": "user", "content": "Once upon a time"}
# A model that was never taught tools would tell a story first, which `tool_choice` allows.
CALL = {"role": "assistant", "content": "<tool_call>\n"}
TEMPLATE = str(Path(__file__).with_name("tools.jinja"))
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer", "enum": [1, 2]}}, "required": ["a"]},
    },
}


@pytest.fixture(scope="module")
def openai():
    return pytest.importorskip("openai")


@pytest.fixture
def client(real, openai):
    with openai.OpenAI(base_url=f"{real.address}/v1", api_key="none", max_retries=0, timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def chats(start_real, long_stories, openai):
    """A client of a model with room for tools, and a chat template."""
    server = start_real("--template", TEMPLATE, "--slots", "2", model=long_stories)
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=120) as found:
        yield found


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["stories260K"]
    assert client.models.retrieve("stories260K").meta["context"] == 512


def test_metrics_are_edges_and_llama_servers(real) -> None:
    _, headers, text = real.get("/metrics")
    assert {"edge_slots 3.0", "# TYPE llamacpp:prompt_tokens_total counter"} <= set(text.splitlines())
    assert float(headers["Process-Start-Time-Unix"]) > 0


def test_a_completion_tells_the_story(client) -> None:
    done = client.completions.create(model="stories260K", prompt="Once upon a time", max_tokens=40, temperature=0)
    assert ("Once upon a time" + done.choices[0].text).startswith(STORY)
    assert done.choices[0].finish_reason == "length"
    assert (done.usage.completion_tokens, done.usage.total_tokens) == (40, done.usage.prompt_tokens + 40)


def test_a_chat_streams_the_same_text_with_its_usage(client) -> None:
    asked = {"model": "stories260K", "messages": [USER], "max_tokens": 40, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 40
    # The prompt had been read for the first answer, all but its last token.
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - 1


def test_a_seed_gives_the_same_text_again(client) -> None:
    def text(seed):
        done = client.completions.create(model="stories260K", prompt="The", max_tokens=20, temperature=1, seed=seed)
        return done.choices[0].text

    assert text(5) == text(5)
    assert len({text(seed) for seed in range(4)}) > 1
    assert text(2**40)


def test_token_ids_are_a_prompt_too(client, openai) -> None:
    done = client.completions.create(model="stories260K", prompt=[1, 403], max_tokens=3, temperature=0)
    assert done.usage.prompt_tokens == 2
    with pytest.raises(openai.BadRequestError, match="token"):
        client.completions.create(model="stories260K", prompt=[1, 512])


def test_stop_texts_end_the_answer_and_are_not_in_it(client) -> None:
    asked = {"model": "stories260K", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}
    done = client.completions.create(**asked, stop=["park", "Lily"])
    assert done.choices[0].text == ", there was a little girl named "
    assert done.choices[0].finish_reason == "stop"
    streamed = [c.choices[0].text for c in client.completions.create(**asked, stop="little girl", stream=True)]
    assert "".join(streamed) == ", there was a "


@pytest.mark.parametrize("streams", [False, True])
def test_a_schema_is_kept_to(chats, streams) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 5, "maximum": 9}, "old": {"type": "boolean"}},
        "required": ["age", "old"], "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema}}
    asked = {"model": "x", "messages": [USER], "max_tokens": 80, "response_format": form, "seed": 1}
    if streams:
        parts = chats.chat.completions.create(**asked, stream=True)
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    else:
        text = chats.chat.completions.create(**asked).choices[0].message.content
    found = json.loads(text)
    assert set(found) == {"age", "old"}
    assert 5 <= found["age"] <= 9
    assert isinstance(found["old"], bool)


def test_a_grammar_is_an_extension(client, openai) -> None:
    asked = {"model": "stories260K", "prompt": "Lily said", "max_tokens": 20}
    done = client.completions.create(**asked, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert done.choices[0].text in ("yes", "no")
    with pytest.raises(openai.BadRequestError, match="grammar"):
        client.completions.create(**asked, extra_body={"grammar": "root ::= ("})


def test_several_choices_with_their_probabilities_and_a_bias(chats) -> None:
    done = chats.chat.completions.create(
        model="x", messages=[USER], max_tokens=3, n=2, seed=3, logprobs=True, top_logprobs=2, temperature=1.5
    )
    assert [choice.index for choice in done.choices] == [0, 1]
    first = done.choices[0].logprobs.content[0]
    assert len(first.top_logprobs) == 2
    assert first.logprob <= 0
    plain = chats.completions.create(model="x", prompt="Once upon a time", max_tokens=1, temperature=0)
    ids = chats.post("/../tokenize", body={"content": plain.choices[0].text}, cast_to=object)["tokens"]
    other = chats.completions.create(
        model="x", prompt="Once upon a time", max_tokens=1, temperature=0, logit_bias={str(one): -100 for one in ids}
    )
    assert other.choices[0].text != plain.choices[0].text


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_tool_is_called_and_its_result_taken_up(chats, streams, choice) -> None:
    other = {**TOOL, "function": {**TOOL["function"], "name": "other"}}
    tools = [TOOL] if choice == "required" else [other, TOOL]
    asked = {"model": "x", "messages": [USER, CALL], "tools": tools, "tool_choice": choice, "max_tokens": 80, "seed": 1}
    asked["parallel_tool_calls"] = False
    if streams:
        name = arguments = ""
        for part in chats.chat.completions.create(**asked, stream=True):
            for call in (part.choices[0].delta.tool_calls or []) if part.choices else []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    else:
        (call,) = chats.chat.completions.create(**asked).choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert name == "add"
    assert json.loads(arguments)["a"] in (1, 2)
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    done = chats.chat.completions.create(model="x", messages=messages, tools=[TOOL], max_tokens=4)
    assert done.usage.completion_tokens > 0


NAMED = {"type": "function", "function": {"name": "add"}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [USER], "tools": [TOOL], "tool_choice": "required"}),
        ("/v1/chat/completions", {"messages": [USER], "tools": [TOOL], "tool_choice": NAMED}),
        ("/v1/responses", {"input": "add", "tools": [{"type": "function", "name": "add"}], "tool_choice": "required"}),
        ("/v1/messages", {"messages": [USER], "tools": [{"name": "add"}], "tool_choice": {"type": "any"}}),
    ],
)
def test_a_call_cannot_be_required_of_a_template_without_tools(real, path, body) -> None:
    status, _, answer = real.post(path, {**body, "max_tokens": 2})
    assert (status, answer["error"]["param"]) == (400, "tool_choice"), answer
    assert "does not support tools" in answer["error"]["message"]


def test_an_answer_that_was_begun_is_gone_on_with(chats) -> None:
    begun = {"role": "assistant", "content": "Once upon a time"}
    done = chats.chat.completions.create(model="x", messages=[USER, begun], max_tokens=8, temperature=0)
    prompt = chats.post("/../apply-template", body={"messages": [USER, begun]}, cast_to=object)["prompt"]
    assert prompt.endswith("Once upon a time")
    assert done.choices[0].message.content


def test_responses(chats) -> None:
    done = chats.responses.create(model="x", input="Once upon a time", max_output_tokens=8, temperature=0)
    assert done.output_text
    kinds = [event.type for event in chats.responses.create(model="x", input="Once", max_output_tokens=4, stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    form = {"type": "json_schema", "name": "old", "schema": {"type": "boolean"}}
    done = chats.responses.create(model="x", input="Old?", max_output_tokens=80, text={"format": form})
    assert json.loads(done.output_text) in (True, False)


def test_embeddings(start_real, openai) -> None:
    server = start_real("--slots", "1", "--", "--embeddings", "--pooling", "mean")
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=120) as client:
        found = client.embeddings.create(model="x", input=["Lily", "a red ball"])
        assert [len(one.embedding) for one in found.data] == [64, 64]
        assert sum(value * value for value in found.data[0].embedding) == pytest.approx(1, abs=1e-3)


def test_documents_are_ranked(start_real, openai) -> None:
    server = start_real("--slots", "1", "--", "--reranking")
    body = {"model": "x", "query": "A red ball", "documents": ["Lily has a red ball.", "The sun is hot."], "top_n": 2}
    for path in ("/v1/rerank", "/rerank"):
        status, _, answer = server.post(path, body)
        assert status == 200, answer
        assert sorted(one["index"] for one in answer["results"]) == [0, 1]
        assert all(isinstance(one["relevance_score"], float) for one in answer["results"])
    assert server.post("/v1/rerank", {"model": "x", "query": "A"})[0] == 400


def test_what_is_wrong_is_named_and_what_is_unknown_ignored(client, openai) -> None:
    done = client.completions.create(
        model="gpt-4", prompt="a", max_tokens=1, user="me", extra_body={"num_ctx": 9, "keep_alive": "5m", "top_a": 0}
    )
    assert done.usage.completion_tokens == 1
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="stories260K", prompt="a long story " * 400)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="stories260K", prompt="a", temperature="hot")
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="'n'"):
        client.completions.create(model="stories260K", prompt="a", n=100)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"content": 5}),
        ("/tokenize", b"{"),
        ("/detokenize", {"tokens": [99_999]}),
        ("/v1/messages", {"max_tokens": 3}),
        ("/v1/chat/completions", {"messages": [USER], "tools": [{"type": "function", "function": 3}]}),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "tool_calls": [{"type": 5}]}]}),
    ],
)
def test_a_mistake_that_only_llama_server_notices_is_the_clients_error_too(real, path, body) -> None:
    status, _, answer = real.post(path, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error"), answer


def test_a_picture_is_refused_by_a_model_that_sees_none(chats, openai) -> None:
    address = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": address}}]
    with pytest.raises(openai.APIStatusError, match="image input is not supported"):
        chats.chat.completions.create(model="x", messages=[{"role": "user", "content": content}])


def test_an_answer_to_the_end_of_the_context_is_whole_and_says_so(client) -> None:
    done = client.completions.create(model="stories260K", prompt=STORY, max_tokens=1000, temperature=0)
    assert done.choices[0].finish_reason in ("stop", "length")
    assert done.usage.total_tokens <= 512
