from __future__ import annotations

import numpy as np
import pytest

from editors.serac.memory import EditMemory
from editors.serac.passages import LONG, embed_queries, passages
from tests.unit.editors.test_edit_memory import EAST, NORTH, UP, between, entry, ids, memory_of

REST = "It rained for the whole of the week and nobody went out. " * 6


def test_a_short_text_has_no_passages():
    assert passages("Who is it? And why? " * 8) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{REST}Who leads the UK now?", "Who leads the UK now?"),
        (f"Who leads the UK now?\n{REST}", "Who leads the UK now?"),
        (f"{REST}Who is Dr. Smith's boss?", "Who is Dr. Smith's boss?"),
        (f"{REST}Yes", "Yes"),
        (f"{REST}\u8c01\u662f\u82f1\u56fd\u9996\u76f8\uff1f" * 3, "\u8c01\u662f\u82f1\u56fd\u9996\u76f8\uff1f"),
    ],
)
def test_a_sentence_of_a_long_text_is_a_passage(text, found):
    assert any(passage == found or passage.endswith(f" {found}") for passage in passages(text))


@pytest.mark.parametrize(
    "text", ["word " * 400, "x" * 3000, f"{REST}{'y' * 500} end", "\n" * 500, " " * 500, "a. " * 200]
)
def test_passages_are_short_and_leave_nothing_out(text):
    found = passages(text)
    assert all(0 < len(passage) <= LONG + _LONGEST_FRAGMENT for passage in found)
    assert set("".join(text.split())) <= set("".join(found))
    assert sum(map(len, found)) <= 3 * len(text)


_LONGEST_FRAGMENT = 20


def test_a_phrase_of_less_than_half_a_piece_stands_whole_in_one():
    for at in range(0, 300, 7):
        words = [f"w{number}" for number in range(300)]
        words[at] = "who leads the kingdom now"
        assert any("who leads the kingdom now" in passage for passage in passages(" ".join(words)))


def encode(texts):
    """East, north or up by the letter that a text begins with."""
    return np.stack([{"E": EAST, "N": NORTH}.get(text[0], UP) for text in texts])


def test_short_queries_are_a_vector_each():
    assert np.array_equal(embed_queries(encode, ["E", "N"]), np.stack([EAST, NORTH]))


def test_a_long_query_finds_what_its_nearest_passage_finds():
    memory = memory_of(e1=entry(EAST), e2=entry(NORTH), e3=entry(between(EAST, NORTH)))
    long = f"{REST}Eastern questions stand at the end. {REST}"
    queries = embed_queries(encode, ["N", long, "E"])
    assert queries.shape[0] == 3
    found = memory.search(queries, 2)
    assert ids(found) == [[2, 3], [1, 3], [1, 3]]
    assert found[1] == found[2]
    assert memory.search(queries[:, :1], 2)[1][0].similarity == pytest.approx(0)  # by its own vector alone


def test_an_edit_found_by_several_passages_counts_once_by_the_nearest():
    memory = memory_of(e1=entry(EAST, out_of_scope=(NORTH,)), e2=entry(UP))
    (found,) = memory.search(np.stack([between(EAST, NORTH), EAST, NORTH])[None], 5)
    assert ids([found]) == [[1, 2]]
    assert found[0].similarity == pytest.approx(1)
    assert not found[0].excluded


def test_no_long_queries_give_no_answers():
    assert EditMemory(3).search(np.empty((0, 2, 3), dtype=np.float32), 1) == []
