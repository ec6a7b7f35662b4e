"""Text token by token: the pieces are the whole, whatever falls between two of them."""

from __future__ import annotations

from random import Random

import pytest

from service.runtime.text import Stripped, Text
from tests.tiny_models import VOCABULARY, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def pieces_of(ids, stop=()):
    text, pieces = Text(TOKENIZER, stop), []
    for token in ids:
        text.push(token)
        pieces.append(text.take())
        if text.stopped:
            break
    pieces.append(text.take(last=True))
    return pieces, text


def ids_of(text):
    return TOKENIZER(text)["input_ids"]


@pytest.mark.parametrize("seed", range(200))
def test_the_pieces_of_any_tokens_are_their_text(seed):
    draw = Random(seed)
    ids = [draw.randrange(VOCABULARY) for _ in range(draw.randrange(1, 60))]
    pieces, text = pieces_of(ids)
    assert "".join(pieces) == text.said == TOKENIZER.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("said", ["Zürich, 東京 🙂🙃!", "é" * 20, "👩‍👩‍👧 family", "a\n\n b\t"])
def test_no_piece_holds_half_a_character(said):
    pieces, _ = pieces_of(ids_of(said))
    assert "".join(pieces) == said
    assert not any("\ufffd" in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) > 3


@pytest.mark.parametrize("seed", range(200))
def test_with_stop_strings_the_pieces_are_the_text_before_the_first(seed):
    draw = Random(seed)
    said = "".join(draw.choices("ab é\n🙂", k=40))
    stop = ["".join(draw.choices("ab é\n🙂", k=draw.randrange(1, 5))) for _ in range(draw.randrange(1, 4))]
    pieces, text = pieces_of(ids_of(said), stop)
    first = min((place for one in stop if (place := said.find(one)) >= 0), default=None)
    assert "".join(pieces) == text.said == said[:first]
    assert text.stopped == (first is not None)


def test_only_what_may_begin_a_stop_string_is_kept_back():
    text = Text(TOKENIZER, ["END"])
    taken = []
    for token in ids_of("xE y EN z"):
        text.push(token)
        taken.append(text.take())
    assert taken == ["x", "", "E ", "y", " ", "", "", "EN ", "z"]


@pytest.mark.parametrize("seed", range(200))
def test_stripped_pieces_are_the_stripped_text(seed):
    draw = Random(seed)
    pieces = ["".join(draw.choices(" \n\u2003ab", k=draw.randrange(4))) for _ in range(8)]
    stripped = Stripped()
    said = [stripped.push(piece) for piece in pieces]
    assert "".join(said) == "".join(pieces).strip()
