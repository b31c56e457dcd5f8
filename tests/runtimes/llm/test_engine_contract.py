"""What every engine for language models must do, held against each one that the folder of engines lists."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtimes import registry
from runtimes.errors import InputError, UsageError
from runtimes.llm.session import CAPABILITIES, FINISHES, LoadOptions, TextEngine, TextOptions

MODEL = str(Path(__file__).parents[1] / "models" / "llama_cpp.gguf")
ENGINES = [name for name in registry.engine_ids() if isinstance(registry.engine(name), TextEngine)]
GREEDY = TextOptions(temperature=0, max_tokens=40, ignore_end=True)


@pytest.fixture(params=ENGINES)
def adapter(request):
    found = registry.engine(request.param)
    if not registry.is_installed(found):
        pytest.skip(f"{found.id} is not installed")
    return found


@pytest.fixture
def server(monkeypatch):
    """The address of a real llama-server, which xllamacpp is inside."""
    engine = registry.engine("xllamacpp")
    if not registry.is_installed(engine):
        pytest.skip("there is no llama-server: xllamacpp is not installed")
    with engine.open_text(MODEL, LoadOptions(context=256, slots=2, threads=1)) as session:
        monkeypatch.setenv("EDGE_API_KEY", session._key)
        yield f"http://{session._parts.netloc}"


@pytest.fixture
def served(adapter, request):
    """The model as this engine takes it: a file, or the address of a server that has it open."""
    return request.getfixturevalue("server") if "gguf" not in adapter.formats else MODEL


@pytest.fixture
def slots(adapter):
    """How many texts it continues at the same time here."""
    return 1 if adapter.id == "llama_cpp" else 2


@pytest.fixture
def session(adapter, served, slots):
    with adapter.open_text(served, LoadOptions(context=256, slots=slots, threads=1)) as session:
        yield session


def needs(session, capability):
    if capability not in session.capabilities:
        pytest.skip(f"no {capability}")


def text_of(session, tokens, options=GREEDY):
    parts = list(session.generate(tokens, options))
    return [part.id for part in parts[:-1]], "".join(part.text for part in parts), parts[-1].finish


def numbers(count, seed=0):
    return [int(token) for token in np.random.default_rng(seed).integers(3, 288, count)]


@pytest.mark.parametrize("name", ENGINES)
def test_the_adapter_says_who_it_is(name):
    found = registry.engine(name)
    assert found.id == name
    assert found.formats
    assert all(" " in meaning for meaning in found.settings.values())
    assert found.__class__.__doc__


def test_it_may_be_closed_as_soon_as_it_is_open(adapter, served, slots):
    for _ in range(100):
        with adapter.open_text(served, LoadOptions(context=256, slots=slots, threads=1)) as session:
            assert session.facts.slots == slots


def test_it_says_its_version_and_what_the_model_is(adapter, session, slots):
    assert adapter.version()[0].isdigit()
    assert session.facts.vocabulary == 288
    assert session.facts.context == 256
    assert session.facts.slots == slots
    assert session.facts.bos == 1
    assert session.facts.template is None
    assert session.capabilities <= set(CAPABILITIES)


def test_text_and_tokens(session):
    needs(session, "tokenize")
    for text in (" a b", "ein Löffel 🥄", "<s> is no mark"):
        tokens = session.tokenize(text, special=False)
        assert session.detokenize(tokens).strip() == text.strip()
        assert 1 not in tokens
    assert session.tokenize("a", begin=True)[0] == 1
    assert 2 in session.tokenize("</s>", special=True)
    assert session.detokenize([2], special=True) == "</s>"
    assert session.detokenize([2]) == ""


def test_greedy_is_the_same_every_time_and_stops_at_its_limit(session):
    first, text, finish = text_of(session, numbers(9))
    again, _, second = text_of(session, numbers(9))
    assert first == again
    assert 30 <= len(first) <= 40  # a server does not name tokens that end inside a character
    assert finish.reason == "length" in FINISHES
    assert finish.tokens == 40
    assert finish.prompt_tokens == 9
    assert second.reused_tokens == 8  # all but the one whose scores are needed
    assert text


def test_a_seed_repeats_a_draw_and_no_seed_does_not(session):
    drawn = TextOptions(temperature=2.0, top_k=0, top_p=1, min_p=0, max_tokens=30, ignore_end=True, seed=7)
    assert text_of(session, numbers(5), drawn)[0] == text_of(session, numbers(5), drawn)[0]
    free = TextOptions(temperature=2.0, top_k=0, top_p=1, min_p=0, max_tokens=30, ignore_end=True)
    one, _, first = text_of(session, numbers(5), free)
    other, _, second = text_of(session, numbers(5), free)
    assert first.seed != second.seed
    assert one != other


def test_answers_at_the_same_time_are_those_that_each_gives_alone(session):
    alone = [text_of(session, numbers(20, seed))[0] for seed in range(5)]
    found = [None] * 5

    def answer(seed):
        found[seed] = text_of(session, numbers(20, seed))[0]

    threads = [threading.Thread(target=answer, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_a_full_context_ends_the_answer(session):
    _, _, finish = text_of(session, numbers(250), TextOptions(temperature=0, ignore_end=True))
    assert finish.reason == "context"
    assert 250 + finish.tokens in (256, 257)  # the last one has no room any more


@pytest.mark.parametrize("tokens", [[], numbers(257), [288], [-1]], ids=["nothing", "too long", "unknown", "negative"])
def test_a_prompt_that_cannot_be_read_is_refused(session, tokens):
    with pytest.raises(InputError):
        list(session.generate(tokens, GREEDY))


def test_no_tokens_at_all(session):
    assert text_of(session, numbers(5), TextOptions(max_tokens=0))[2].tokens == 0


def test_cancelling_ends_an_answer_and_the_next_one_is_right(session):
    expected = text_of(session, numbers(9))[0]
    cancel, seen = threading.Event(), []
    for token in session.generate(numbers(9), TextOptions(temperature=0, ignore_end=True), cancel):
        seen.append(token)
        if len(seen) == 3:
            time.sleep(0.2)  # tokens are made meanwhile
            cancel.set()
    assert len(seen) == 4
    assert seen[-1].finish.reason in ("cancelled", "context")
    assert text_of(session, numbers(9))[0] == expected


def test_leaving_an_answer_frees_its_slot(session):
    for _ in range(6):  # three times as many as there are slots
        for _token in session.generate(numbers(9), TextOptions(temperature=0, ignore_end=True)):
            break
    assert text_of(session, numbers(9))[2].reason == "length"


def test_what_stands_behind_a_gap_is_not_read_again(session):
    needs(session, "shift")
    head, dropped, tail = numbers(20, 1), numbers(60, 2), numbers(100, 3)
    text_of(session, head + dropped + tail, TextOptions(max_tokens=1))
    _, _, finish = text_of(session, [*head, *tail, 5, 6], TextOptions(max_tokens=1))
    assert finish.reused_tokens == 120


def test_scores_are_those_that_greedy_follows(session):
    needs(session, "logits")
    prompt = numbers(9)
    first = text_of(session, prompt, TextOptions(temperature=0, max_tokens=1, ignore_end=True))[0]
    scores = session.logits(prompt)
    assert scores.shape == (9, 288)
    assert scores.dtype == np.float32
    assert [int(scores[-1].argmax())] == first
    np.testing.assert_allclose(session.logits(numbers(130))[-1], session.logits(numbers(130))[-1], atol=1e-3)


def test_a_grammar_and_a_schema_bind_the_answer(session):
    options = TextOptions(max_tokens=20, grammar='root ::= "a" "b"+ "c"', seed=1)
    text = text_of(session, numbers(5), options)[1]
    assert text.strip().startswith("ab")
    schema = TextOptions(max_tokens=60, json_schema='{"type": "boolean"}', seed=1)
    assert text_of(session, numbers(5), schema)[1] in ("true", "false")
    bounded = TextOptions(max_tokens=60, json_schema='{"type": "integer", "minimum": 5, "maximum": 9}', seed=1)
    assert 5 <= int(text_of(session, numbers(5), bounded)[1]) <= 9


def test_a_word_of_a_schema_that_cannot_be_enforced_is_refused(session):
    with pytest.raises(InputError, match="'uniqueItems' cannot be enforced"):
        list(session.generate(numbers(5), TextOptions(json_schema='{"type": "array", "uniqueItems": true}')))


@pytest.mark.parametrize("options", [{"grammar": "root ::= ("}, {"json_schema": "{"}], ids=["grammar", "schema"])
def test_a_broken_grammar_is_an_error_and_the_model_lives(session, options):
    with pytest.raises(InputError):
        list(session.generate(numbers(5), TextOptions(**options)))
    assert text_of(session, numbers(5))[2].tokens == 40


def test_a_state_saves_reading(adapter, served, tmp_path):
    with adapter.open_text(served, LoadOptions(context=256, threads=1)) as session:
        needs(session, "state")
        expected = text_of(session, numbers(50))[0]
        session.save_state(str(tmp_path / "state"))
    with adapter.open_text(served, LoadOptions(context=256, threads=1)) as other:
        assert other.load_state(str(tmp_path / "state"))[:50] == numbers(50)
        again, _, finish = text_of(other, numbers(50))
        assert again == expected
        assert finish.reused_tokens == 49
        (tmp_path / "broken").write_bytes(b"no state")
        with pytest.raises(InputError):
            other.load_state(str(tmp_path / "broken"))
        assert text_of(other, numbers(50))[0] == expected


def test_a_closed_session_says_so(adapter, served):
    session = adapter.open_text(served, LoadOptions(context=256, threads=1))
    waiting = session.generate(numbers(9), TextOptions(temperature=0, ignore_end=True))
    next(waiting)
    session.close()
    session.close()
    assert list(waiting)[-1].finish.reason in ("cancelled", "context")
    with pytest.raises(UsageError):
        session.generate(numbers(9), GREEDY)


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_a_cache_that_the_model_cannot_have_is_refused(adapter, served, kind):
    # Its blocks are of 32 numbers of a head, and this model's heads have 8; a server is not told by those who use it.
    with pytest.raises(UsageError):
        adapter.open_text(served, LoadOptions(context=256, threads=1, kv_type=kind))


def test_words_that_an_engine_does_not_know_are_refused(adapter, served):
    with pytest.raises(UsageError):
        adapter.open_text(served, LoadOptions(settings={"speed": "high"}))
