"""A conversation that is too long loses its oldest turns, and nothing else."""

from __future__ import annotations

import pytest

from edge.chat.context_window import fit
from edge.llm.chat_template import ChatTemplate
from runtimes.errors import InputError


def _talk(turns: int, length: int = 20) -> list[dict[str, str]]:
    talk = [{"role": "system", "content": "Be kind."}]
    for number in range(turns):
        talk.append({"role": "user", "content": f"{number:02d}" + "q" * length})
        talk.append({"role": "assistant", "content": f"{number:02d}" + "a" * length})
    return [*talk, {"role": "user", "content": "last"}]


def _fit(session, talk, room=None):
    return fit(ChatTemplate.named("chatml", session.facts), session, talk, room)


def test_what_fits_is_kept_whole(scripted) -> None:
    fitted = _fit(scripted(), _talk(2), 10)
    assert (fitted.kept, fitted.dropped) == (_talk(2), [])


@pytest.mark.parametrize("turns", [4, 5, 12, 60])
def test_the_oldest_turns_go_and_no_more_than_needed(scripted, turns) -> None:
    session, talk = scripted(context=400), _talk(turns)
    fitted = _fit(session, talk, 100)
    gone = len(fitted.dropped) // 2
    assert fitted.kept == [talk[0], *talk[1 + 2 * gone :]]
    assert len(fitted.tokens) <= 300
    one_more = [talk[0], *talk[1 + 2 * (gone - 1) :]]
    assert len(ChatTemplate.named("chatml", session.facts).tokens(session, one_more)) > 300


def test_the_last_question_gets_what_room_there_is(scripted) -> None:
    fitted = _fit(scripted(context=50), _talk(3))
    assert [message["role"] for message in fitted.kept] == ["system", "user"]
    assert len(fitted.tokens) == 42


def test_a_question_longer_than_the_context_is_refused(scripted) -> None:
    with pytest.raises(InputError, match="the context holds 64") as caught:
        _fit(scripted(context=64), [{"role": "user", "content": "x" * 100}])
    assert "--context" in caught.value.hint
