"""Words, as the list of edits is searched by them.

PostgreSQL's own parser knows only the letters of the database's locale, and takes a sentence written without spaces for
one word. So words are told apart here, and it is given them with a space between; its configuration `simple` leaves
them as they are, since stems and stop words belong to one language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from sqlalchemy import ColumnElement, false, func

from service.domain.edits import Descriptor
from service.store.tables import edits

# Scripts that write no space between words: Thai, Lao, Tibetan, Myanmar, Khmer, kana, bopomofo, ideographs.
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SPACED_OUT = re.compile(f"([{_UNSPACED}])")
_PART = re.compile(r'"([^"]*)"|([^\s"]+)')


def searchable(descriptor: Descriptor) -> str:
    """What searches look into: the words of the prompt and of the target."""
    return " ".join(words(f"{descriptor.prompt}\n{descriptor.target}"))


def words(text: str) -> list[str]:
    """The words of a text, without case, and with one form for each composed character.

    Letters, digits and the marks that belong to them make words; in a script without spaces each character is one.
    """
    folded = unicodedata.normalize("NFC", text.casefold())
    kept = "".join(character if unicodedata.category(character)[0] in "LMN" else " " for character in folded)
    return _SPACED_OUT.sub(r" \1 ", kept).split()


def holds(q: str) -> Iterator[ColumnElement[bool]]:
    """The conditions that an edit holds every word of `q`; those in quotes, or joined to one, one after another."""
    phrases = [phrase for match in _PART.finditer(q) if (phrase := words(match[1] or match[2] or ""))]
    for phrase in phrases:
        yield edits.c.words.op("@@")(func.phraseto_tsquery("simple", " ".join(phrase)))
    if not phrases:
        yield false()
