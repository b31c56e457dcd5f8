"""Chat templates are rendered in the sandbox before they are written into a GGUF file."""

import json
from pathlib import Path

import pytest

from converters.gguf.chat_template import render_chat
from converters.gguf.tokenizer_json import TokenizerSettings, read_template
from runtimes.errors import InputError
from runtimes.llm import template_sandbox

pytest.importorskip("jinja2", reason="chat templates are rendered with jinja2")

MESSAGES = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
TRAINED = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)


def test_a_template_that_marks_what_is_trained_on_is_carried() -> None:
    render_chat(TRAINED, "model", "<s>", "</s>")


QUESTION = "What is the capital of France?"
# As in llava-1.5-7b-hf: it reads typed parts only.
LLAVA = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
STRICT = "{% for m in messages %}{{ m.content[0].text + '|' }}{% endfor %}"  # fails on a text


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        (
            LLAVA,
            "USER: What is the capital of France? ASSISTANT: Paris. USER: ?ecnarF fo latipac eht si tahW ASSISTANT:",
        ),
        (STRICT, f"{QUESTION}|Paris.|{QUESTION[::-1]}|"),
    ],
)
def test_a_template_that_reads_typed_parts_gets_them(template: str, rendered: str) -> None:
    assert render_chat(template, "m", "", "") == rendered


def test_a_template_that_is_only_in_the_processors_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": LLAVA}), encoding="utf-8")
    assert read_template(tmp_path, TokenizerSettings({})) == LLAVA
    assert read_template(tmp_path, TokenizerSettings({"chat_template": MESSAGES})) == MESSAGES


def test_a_template_that_asks_for_the_date_gets_the_same_one_each_time() -> None:
    render_chat(
        "{% if strftime_now('%Y') != '2026' %}{{ raise_exception('clock') }}{% endif %}" + MESSAGES, "m", "", ""
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", "the chat template of m fails: no"),
        ("{% broken", "the chat template of m fails"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "the chat template of m fails"),
        ("{% for message in messages %}{{ message['role'] }}{% endfor %}", "does not render a plain chat"),
        ("{{ 'a' * 10**10 }}", "the chat template of m needs more memory"),
    ],
)
def test_a_template_that_does_not_work_is_refused_with_its_name(template: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        render_chat(template, "m", "", "")
    assert "--no-template" in caught.value.hint


def test_a_template_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "RENDER_S", 2.0)
    endless = "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match="the chat template of m takes longer"):
        render_chat(endless, "m", "", "")
