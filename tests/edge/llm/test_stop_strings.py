"""Stop strings are found however the stream is split, and no other text is lost."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge.llm.chat_template import StopTexts

letters = st.text("ab#", max_size=30)


@given(letters, st.lists(st.integers(0, 30)), st.lists(st.text("ab#", min_size=1, max_size=4), max_size=3))
def test_pieces_make_no_difference(text, cuts, stops) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    stream = StopTexts(stops)
    shown = "".join(stream.feed(text[a:b]) for a, b in itertools.pairwise(places)) + stream.rest()
    first = min((text.find(stop) for stop in stops if stop in text), default=None)
    if stream.hit is None:
        assert first is None
        assert shown == text
    else:
        assert stream.hit in stops
        assert text.startswith(shown + stream.hit)
