"""The real openai client against `edge serve` with the real engine and a real model."""

import json

import pytest

STORY = "Once upon a time, there was a little girl named Lily."


@pytest.fixture
def client(real):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{real.address}/v1", api_key="none", max_retries=0, timeout=120) as found:
        yield found


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["stories260K"]
    assert client.models.retrieve("stories260K").meta["context"] == 512


def test_a_completion_tells_the_story(client) -> None:
    done = client.completions.create(model="stories260K", prompt="Once upon a time", max_tokens=40, temperature=0)
    assert ("Once upon a time" + done.choices[0].text).startswith(STORY)
    assert done.choices[0].finish_reason == "length"
    assert (done.usage.completion_tokens, done.usage.total_tokens) == (40, done.usage.prompt_tokens + 40)


def test_a_chat_streams_the_same_text_with_its_usage(client) -> None:
    asked = {
        "model": "stories260K", "messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 40,
        "temperature": 0,
    }  # fmt: skip
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


def test_token_ids_are_a_prompt_too(client) -> None:
    done = client.completions.create(model="stories260K", prompt=[1, 403], max_tokens=3, temperature=0)
    assert done.usage.prompt_tokens == 2
    with pytest.raises(Exception, match="ids outside 0 to 511"):
        client.completions.create(model="stories260K", prompt=[1, 512])


def test_stop_texts_end_the_answer_and_are_not_in_it(client) -> None:
    asked = {"model": "stories260K", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}
    done = client.completions.create(**asked, stop=["park", "Lily"])
    assert done.choices[0].text == ", there was a little girl named "
    assert done.choices[0].finish_reason == "stop"
    streamed = [c.choices[0].text for c in client.completions.create(**asked, stop="little girl", stream=True)]
    assert "".join(streamed) == ", there was a "


def test_a_schema_is_kept_to(client) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    form = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema}}
    done = client.chat.completions.create(
        model="stories260K", messages=[{"role": "user", "content": "Lily"}], max_tokens=60, response_format=form, seed=1
    )
    assert isinstance(json.loads(done.choices[0].message.content)["age"], int)


def test_a_grammar_is_an_extension(client) -> None:
    asked = {"model": "stories260K", "prompt": "Lily said", "max_tokens": 20}
    done = client.completions.create(**asked, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert done.choices[0].text in ("yes", "no")
    with pytest.raises(Exception, match="grammar"):
        client.completions.create(**asked, extra_body={"grammar": "root ::= ("})


def test_errors_are_the_clients_own(client) -> None:
    import openai

    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="stories260K", prompt="a long story " * 400)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(model="stories260K", messages=[{"role": "user", "content": "a"}], n=2)
    assert unknown.value.param == "n"


def test_an_answer_to_the_end_of_the_context_is_whole_and_says_so(client) -> None:
    done = client.completions.create(
        model="stories260K", prompt=STORY, max_tokens=1000, temperature=0, extra_body={"repeat_penalty": 1.0}
    )
    assert done.choices[0].finish_reason in ("stop", "length")
    assert done.usage.total_tokens <= 512
