"""`edge chat` as users run it: real processes, a real terminal, a real engine and a real, small model."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.edge.chat.terminals import Terminal
from tests.real_data import real_data

ROOT = Path(__file__).parents[3]
# It never ends by itself, so that there is time to interrupt or kill it.
ENDLESS = 'root ::= [a-z ]+ "\\x01"\n'
SECONDS = 300


@pytest.fixture(scope="module")
def model() -> str:
    pytest.importorskip("llama_cpp")
    return str(real_data("llm/stories260K.gguf"))


@pytest.fixture
def long_model(model, tmp_path) -> str:
    """The same model, which says that it was trained for 65536 tokens: room enough to be interrupted."""
    data = Path(model).read_bytes()
    key = b"llama.context_length" + struct.pack("<I", 4)  # the type: uint32
    place = data.index(key) + len(key)
    (tmp_path / "long.gguf").write_bytes(data[:place] + struct.pack("<I", 65536) + data[place + 4 :])
    return str(tmp_path / "long.gguf")


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {
        **os.environ,
        "EDGE_CHATS": str(tmp_path / "chats"),
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def endless(tmp_path) -> str:
    (tmp_path / "endless.gbnf").write_text(ENDLESS)
    return str(tmp_path / "endless.gbnf")


@pytest.fixture
def run(environment, tmp_path):
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "edge", "chat", *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=SECONDS
        )

    return run


@pytest.fixture
def talk(environment, tmp_path):
    """Begins chats in a terminal of 100 columns."""
    begun = []

    def talk(*words: str) -> Terminal:
        command = [sys.executable, "-m", "edge", "chat", *words]
        begun.append(Terminal(command, env=environment, cwd=tmp_path, seconds=SECONDS))
        return begun[-1]

    yield talk
    for child in begun:
        child.end()


def _saved(tmp_path: Path) -> list[dict]:
    files = list((tmp_path / "chats").glob("*.json"))
    assert len(files) == 1
    return json.loads(files[0].read_text())["messages"]


def _ready(child: Terminal) -> None:
    """Wait for the input line: it begins with asking the terminal to mark what is pasted."""
    child.expect_exact("\x1b[?2004h")


def _leave(child: Terminal) -> None:
    """Ctrl+D at the input line, not before: a terminal in its ordinary mode would swallow it."""
    _ready(child)
    child.press_ctrl("d")
    child.expect(pexpect.EOF)


def _cut_off(talk, model: str) -> Terminal:
    """A chat at its input line, whose one answer has reached a limit of five tokens."""
    child = talk(model, "--template", "plain", "--temp", "0", "--max-tokens", "5")
    _ready(child)
    child.send("Once upon a time\r")
    child.expect("the token limit is reached; Enter continues it")
    _ready(child)
    return child


# One question


def test_one_question_is_answered_on_stdout_alone(run, model) -> None:
    done = run(model, "Once upon a time", "--template", "plain", "--temp", "0")
    assert done.returncode == 0
    assert done.stdout.startswith(", there was a little girl named Lily. She loved to play outside in the park.")
    assert done.stderr == ""


def test_a_question_can_be_piped_in(run, model) -> None:
    options = ("--template", "plain", "--temp", "0", "--max-tokens", "8")
    given = run(model, "Once upon a time", *options).stdout
    assert run(model, *options, stdin="Once upon a time\n").stdout == given != ""
    both = json.loads(run(model, "Once", *options, "--json", stdin="upon").stdout)
    alone = json.loads(run(model, "Once", *options, "--json").stdout)
    assert both["prompt_tokens"] > alone["prompt_tokens"]


def test_json_is_one_object(run, model) -> None:
    done = run(model, "Once", "--template", "plain", "--json", "--max-tokens", "5", "--seed", "7")
    answer = json.loads(done.stdout)
    assert (answer["tokens"], answer["finish"], answer["seed"]) == (5, "length", 7)
    assert answer["answer"]


def test_the_seed_is_another_one_each_time_unless_given(run, model) -> None:
    words = (model, "Once", "--template", "plain", "--json", "--temp", "2", "--max-tokens", "20")
    one, other = (json.loads(run(*words).stdout) for _ in range(2))
    assert one["seed"] != other["seed"]
    again = json.loads(run(*words, "--seed", str(one["seed"])).stdout)
    assert again["answer"] == one["answer"] != other["answer"]


def test_answers_follow_a_schema(run, model, tmp_path) -> None:
    schema = {"type": "object", "properties": {"name": {"enum": ["Lily", "Tim"]}}, "required": ["name"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    done = run(model, "Who?", "--template", "plain", "--json-schema", "schema.json")
    assert json.loads(done.stdout)["name"] in ("Lily", "Tim")


def test_answers_follow_a_grammar(run, model, tmp_path) -> None:
    (tmp_path / "g.gbnf").write_text('root ::= "yes" | "no"\n')
    assert run(model, "Is it?", "--template", "plain", "--grammar", "g.gbnf").stdout.strip() in ("yes", "no")


def test_a_base_model_says_what_to_do(run, model) -> None:
    done = run(model, "tell me a story about fallout")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no chat template" in done.stderr
    assert "--template: plain" in done.stderr


def test_ctrl_c_ends_one_answer_with_its_status(talk, long_model, endless) -> None:
    child = talk(long_model, "Once", "--template", "plain", "--grammar", endless, "--context", "16384")
    child.expect("[a-z ]{20}")
    child.press_ctrl("c")
    child.expect(pexpect.EOF)
    assert child.program.wait(SECONDS) == 130


WRONG = {
    "no model": ((), 2, "no model is specified"),
    "a missing file": (("nowhere.gguf", "x"), 3, "nowhere.gguf"),
    "a missing grammar": (("m.gguf", "x", "--grammar", "no.gbnf"), 3, "no.gbnf cannot be read"),
    "a number that is none": (("m.gguf", "x", "--temp", "warm"), 2, "temp: 'warm' is not a number"),
    "a model and a server": (("m.gguf", "x", "--server", "http://phone:8080"), 2, "a server"),
    "a server of another kind": (("x", "--server", "ftp://phone"), 2, "'ftp://phone' is not the address of a server"),
    "a port beyond all": (
        ("x", "--server", "http://phone:99999"),
        2,
        "'http://phone:99999' is not the address of a server",
    ),
    "json without a question": (("m.gguf", "--json"), 2, "not a terminal and is empty"),
    "a chat to resume in a pipe": (("m.gguf", "x", "--resume"), 2, "--resume is for a chat"),
}


@pytest.mark.parametrize(("words", "status", "told"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_one_line_before_anything_loads(run, words, status, told) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


# A chat


def test_a_chat_streams_takes_commands_and_is_resumed(talk, model, tmp_path) -> None:
    child = talk(model, "--template", "plain", "--temp", "0")
    _ready(child)
    child.send("Once upon a time\r")
    child.expect("there was a little girl named Lily")
    child.expect(r"\d+ tokens · [\d.]+ tok/s · first after .* · context [█░]+ \d+/\d+")
    _ready(child)
    child.send("/stats\r")
    child.expect("seed ")
    child.send("/nonsense\r")
    child.expect("there is no command /nonsense")
    child.send("/set temp 0.5\r")
    child.expect("temp is 0.5")
    child.send("/exit\r")
    child.expect("continue with: edge chat")
    child.expect(pexpect.EOF)
    assert [message["role"] for message in _saved(tmp_path)] == ["user", "assistant"]

    child = talk(model, "--resume")
    child.expect("template: plain")
    child.expect("1 question so far")
    child.send("/undo\r")
    child.expect("removed: Once upon a time")
    _leave(child)


def test_ctrl_c_stops_an_answer_and_then_leaves(talk, long_model, endless, tmp_path) -> None:
    child = talk(long_model, "--template", "plain", "--grammar", endless, "--context", "16384")
    _ready(child)
    child.send("Once\r")
    child.expect("[a-z ]{20}")
    child.press_ctrl("c")
    child.expect("stopped; /retry answers again")  # the grammar would begin anew in the middle
    _ready(child)
    question, answer = _saved(tmp_path)
    assert question["content"] == "Once"
    assert answer["stopped"] is True
    child.send("half a line")
    child.press_ctrl("c")  # clears the line
    child.press_ctrl("c")
    child.expect("continue with: edge chat")
    child.expect(pexpect.EOF)


def test_enter_continues_with_an_answer_that_was_cut_off(talk, model, tmp_path) -> None:
    child = _cut_off(talk, model)
    begun = _saved(tmp_path)[1]["content"]
    child.send("\r")
    child.expect("the token limit is reached; Enter continues it")
    _leave(child)
    answer = _saved(tmp_path)[1]
    assert answer["content"].startswith(begun)
    assert answer["content"] != begun


def test_ctrl_c_stops_the_reading_of_a_long_prompt(talk, long_model, tmp_path) -> None:
    (tmp_path / "long.json").write_text(
        json.dumps({"edge_chat": 1, "messages": [{"role": "user", "content": "Once upon a time. " * 4000}]})
    )
    child = talk(long_model, "--template", "plain", "--context", "65536", "--resume", "long.json")
    child.expect("was not answered")
    _ready(child)
    child.send("/retry\r")
    child.expect(r"reading \[.*tokens")
    child.press_ctrl("c")
    child.expect("stopped before the answer began; /retry asks again")
    _leave(child)


def test_killing_the_chat_loses_no_finished_turn(talk, long_model, endless, tmp_path) -> None:
    child = talk(long_model, "--template", "plain", "--max-tokens", "5")
    _ready(child)
    child.send("Once upon a time\r")
    child.expect("the token limit is reached")
    _leave(child)
    finished = _saved(tmp_path)
    child = talk(long_model, "--grammar", endless, "--context", "16384", "--resume")
    _ready(child)
    child.send("And then\r")
    child.expect("[a-z ]{20}")
    child.program.kill()
    child.program.wait()
    assert _saved(tmp_path) == [*finished, {"role": "user", "content": "And then"}]
    child = talk(long_model, "--resume")
    child.expect("the last question was not answered: /retry answers it")
    _leave(child)


def test_a_retry_and_an_edit_keep_the_turn_until_there_is_another(talk, long_model, tmp_path) -> None:
    said = [{"role": "user", "content": "Once upon a time. " * 4000}, {"role": "assistant", "content": "An answer."}]
    chat = tmp_path / "long.json"
    chat.write_text(json.dumps({"edge_chat": 1, "messages": said}))
    child = talk(long_model, "--template", "plain", "--context", "65536", "--resume", "long.json")
    child.expect("An answer.")
    _ready(child)
    child.send("/retry\r")
    child.expect(r"reading \[.*tokens")
    assert json.loads(chat.read_text())["messages"] == said  # a kill here would lose nothing
    child.press_ctrl("c")
    child.expect("stopped before the answer began; the old answer is kept")
    _ready(child)
    child.send("/edit\r")
    _ready(child)
    child.press_ctrl("c")  # thinks better of it: the line is empty again
    child.press_ctrl("d")
    child.expect(pexpect.EOF)
    assert json.loads(chat.read_text())["messages"] == said


def test_an_edited_question_takes_the_place_of_the_last(talk, model, tmp_path) -> None:
    child = _cut_off(talk, model)
    child.send("/edit\r")
    _ready(child)
    child.send(" there\r")
    child.expect("the token limit is reached")
    _leave(child)
    assert [message["role"] for message in _saved(tmp_path)] == ["user", "assistant"]
    assert _saved(tmp_path)[0]["content"] == "Once upon a time there"


def test_several_lines_are_one_question(talk, model, tmp_path) -> None:
    child = talk(model, "--template", "plain", "--max-tokens", "3")
    typed = {
        "one\\\rtwo\r": "one\ntwo",
        '"""\rthree\rfour\r"""\r': "three\nfour",
        "\x1b[200~five\nsix\n  seven\x1b[201~\r": "five\nsix\n  seven",
    }
    for keys in typed:
        _ready(child)
        child.send(keys)
        child.expect("the token limit is reached")
    _leave(child)
    asked = [message["content"] for message in _saved(tmp_path) if message["role"] == "user"]
    assert asked == list(typed.values())


def test_a_chat_survives_a_window_that_changes_its_size(talk, model, tmp_path) -> None:
    child = talk(model, "--template", "chatml", "--max-tokens", "40")
    for columns in (100, 30, 120):
        _ready(child)
        child.resize(20, columns)
        child.send("Once\r")
        child.expect("tok/s")
    _leave(child)
    assert len(_saved(tmp_path)) == 6


def test_a_full_context_is_reported_and_the_rest_is_not_read_again(talk, model, tmp_path) -> None:
    child = talk(model, "--template", "chatml", "--context", "256", "--max-tokens", "30", "--system", "Be kind.")
    for number in range(6):
        _ready(child)
        child.send(f"Number {number}\r")
        child.expect("tok/s")
    _ready(child)
    child.send("/stats\r")
    child.expect(r"(\d+) tokens? read in .* \((\d+) cached\)")
    read, known = (int(text) for text in child.match.groups())
    assert known > read
    _leave(child)
    assert len(_saved(tmp_path)) == 13


def test_a_full_context_says_what_left_it(talk, model) -> None:
    child = talk(model, "--template", "chatml", "--context", "256", "--max-tokens", "60")
    for number in range(4):
        _ready(child)
        child.send(f"Number {number}\r")
        if child.expect(["the context is full: .* dropped", "tok/s"]) == 0:
            return
    pytest.fail("nobody said that the context was full")


def test_the_engine_ends_with_the_chat(talk, model) -> None:
    child = talk(model, "--template", "plain")
    _ready(child)
    children = _descendants(child.program.pid)
    child.program.kill()
    child.program.wait()
    for process in children:
        _wait_for_end(process)


def _descendants(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _wait_for_end(process: int) -> None:
    for _ in range(SECONDS * 10):
        stat = Path(f"/proc/{process}/stat")
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail(f"process {process} goes on without the chat")


# 2023


def test_the_style_of_2023_looks_as_it_did(talk, model) -> None:
    child = talk(model, "--style", "2023", "--seed", "1680129587", "--threads", "2", "--max-tokens", "12")
    child.expect("> ")
    before = child.before
    child.send("tell me a story\\\r")
    child.expect("about|\r\n")
    child.send("about fallout\r")
    child.expect("\r\n> ")
    child.press_ctrl("c")
    child.expect(pexpect.EOF)
    assert child.program.wait(SECONDS) == 130
    shown = before.replace("\r\n", "\n").replace(model, "MODEL")
    shown = re.sub(r"= 2 / \d+ \|", "= 2 / N |", shown)
    shown = re.sub(r"(AVX\w*|FMA|NEON|ARM_FMA|F16C|FP16_VA|WASM_SIMD|BLAS|SSE3|VSX) = \d", r"\1 = ?", shown)
    golden = Path(__file__).with_name("transcript_2023.txt")
    assert shown == golden.read_text(encoding="utf-8")
