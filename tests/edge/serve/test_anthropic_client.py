"""The real anthropic client against `edge serve` with the real engine and a real model."""

from pathlib import Path

import pytest

CALL = {"role": "assistant", "content": "<tool_call>\n"}
TEMPLATE = str(Path(__file__).with_name("tools.jinja"))
USER = {"role": "user", "content": "Once upon a time"}


@pytest.fixture(scope="module")
def client(start_real, long_stories):
    anthropic = pytest.importorskip("anthropic")
    server = start_real("--template", TEMPLATE, "--slots", "1", model=long_stories, EDGE_API_KEY="correct-horse")
    with anthropic.Anthropic(base_url=server.address, api_key="correct-horse", max_retries=0, timeout=120) as found:
        yield found


def test_a_message_and_its_stream(client) -> None:
    asked = {
        "model": "claude",
        "max_tokens": 8,
        "messages": [USER],
        "system": "Be short.",
        "extra_body": {"temperature": 0},
    }
    done = client.messages.create(**asked)
    assert (done.type, done.role, done.stop_reason) == ("message", "assistant", "max_tokens")
    assert done.usage.output_tokens == 8
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == done.content[0].text


def test_tokens_are_counted(client) -> None:
    assert client.messages.count_tokens(model="claude", messages=[USER]).input_tokens > 10


def test_a_tool_is_called_and_its_result_taken_up(client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "enum": [1]}}, "required": ["a"]}
    tool = {"name": "add", "description": "Adds.", "input_schema": schema}
    other = {**tool, "name": "other"}
    asked = {"model": "claude", "max_tokens": 80, "tools": [other, tool]}
    done = client.messages.create(**asked, messages=[USER, CALL], tool_choice={"type": "tool", "name": "add"})
    use = next(block for block in done.content if block.type == "tool_use")
    assert use.name == "add"
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "3"}]}
    called = {"role": "assistant", "content": [use.model_dump()]}
    done = client.messages.create(**{**asked, "max_tokens": 4}, messages=[USER, called, result])
    assert done.usage.output_tokens > 0


def test_a_wrong_key_is_the_clients_own_error(client) -> None:
    import anthropic

    other = client.with_options(api_key="wrong-horse")
    with pytest.raises(anthropic.AuthenticationError):
        other.messages.create(model="claude", max_tokens=1, messages=[USER])
