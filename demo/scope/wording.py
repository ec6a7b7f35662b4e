"""How users put a question: polite, sloppy, after some talk, of another time, negated; words are in `wording.toml`.

Everything here keeps what is asked, or changes it in one named way; which of the two a function does is in its name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from demo.facts import capitalise
from demo.scope.names import Names

_OFFICE = re.compile(
    r"\bthe ((?:prime |foreign )?minister|president|monarch|governor|mayor|chief executive|CEO|PM|head(?! office)|"
    r"leader|chair|chairperson|coach|captain|manager|store manager|director|medical director|conductor|principal|owner|"
    r"trainer|editor-in-chief|presenter|landlord|caretaker|chef|maintainer|auditor|designer|treasurer|host|"
    r"lecturer|teacher)\b"
)
_CONTRACTIONS = (("What is ", "What's "), ("Who is ", "Who's "), ("Where is ", "Where's "), ("do not", "don't"))
_PRESENT = re.compile(r"\b(is|are|does|do|has|have|can|may)\b")
_PAST_OF = {
    "is": "was", "are": "were", "does": "did", "do": "did", "Is": "Was", "Are": "Were", "Does": "Did", "Do": "Did",
    "'s": " was",
}  # fmt: skip
_NOT = {"is": "isn't", "are": "aren't", "does": "doesn't", "can": "can't", "has": "hasn't"}
_WH = re.compile(r"^(Who|What|Which|Where|How|When|In which|At which|On which|Whose|For which)\b")


@dataclass(frozen=True, slots=True)
class Wording:
    """Rewords questions. `names` fills the numbers in phrases such as `in {1950-2016}`."""

    lists: dict[str, tuple[str, ...]]
    names: Names
    extra_context: tuple[str, ...] = ()

    def dress(self, text: str, subject: str, rng: Random) -> str:
        """What a user may make of it: nothing, a polite or sloppy form, typos, or talk before it.

        In-scope and out-of-scope inputs are dressed alike, so that the dress says nothing about the label.
        """
        draw = rng.random()
        if draw < 0.42:
            return text
        if draw < 0.62:
            return self.sloppy(text, subject, rng)
        if draw < 0.82 and text.endswith("?"):
            return self.polite(text, rng)
        return self.after_talk(text, rng)

    def polite(self, text: str, rng: Random) -> str:
        """With a greeting, a prefix or thanks."""
        return _wrap(rng.choice(self.lists["polite"]), text)

    def sloppy(self, text: str, subject: str, rng: Random) -> str:
        """In lower case, without a question mark, contracted or with a typo outside the subject."""
        for full, short in _CONTRACTIONS:
            if rng.random() < 0.5:
                text = text.replace(full, short)
        if rng.random() < 0.4:
            text = _typo(text, subject, rng)
        if rng.random() < 0.5:
            text = text.rstrip("?")
        elif rng.random() < 0.2:
            text = f"{text}?" if text.endswith("?") else f"{text} ?"
        draw = rng.random()
        return text.lower() if draw < 0.6 else text.upper() if draw < 0.63 else text

    def after_talk(self, text: str, rng: Random) -> str:
        """After one to three sentences about other things."""
        pools = [self.lists["context"], self.extra_context] if self.extra_context else [self.lists["context"]]
        talk = [rng.choice(rng.choice(pools)) for _ in range(rng.choices((1, 2, 3), (0.6, 0.3, 0.1))[0])]
        return " ".join([*talk, text])

    def bridge(self, rng: Random) -> str:
        """Words between an earlier question and the next."""
        return rng.choice(self.lists["bridge"])

    def claim(self, statement: str, rng: Random) -> str:
        """A statement as a true-or-false question."""
        template = rng.choice(self.lists["true_or_false"])
        return _wrap(template, statement if "{q}" in template else statement.rstrip("."))

    def of_now(self, template: str, rng: Random) -> str | None:
        """A phrasing in the present with the present named, or None where that does not fit."""
        if not _PRESENT.search(template) or re.search(r"current|now\b|today|these days|at the moment", template):
            return None
        if template.endswith("?") and rng.random() < 0.6:
            return f"{template[:-1]} {rng.choice(self.lists['now'])}?"
        return _wrap(rng.choice(self.lists["now_opening"]), template)

    def of_then(self, template: str, rng: Random) -> str | None:
        """A phrasing of the present moved to the past or the future, or None where that does not fit."""
        if re.search(r"current|now\b|today|these days|at the moment", template):
            return None
        moved = _past(template) if rng.random() < 0.7 else None
        if moved is not None:
            when = self.names.text(rng.choice(self.lists["past"]), rng)
        elif (moved := _future(template)) is not None:
            when = self.names.text(rng.choice(self.lists["future"]), rng)
        else:
            return None
        return f"{moved[:-1]} {when}?" if moved.endswith("?") else f"{capitalise(when)}, {_lower(moved)}"

    def of_another_office(self, template: str, rng: Random) -> str | None:
        """The deputy's, the former holder's or somebody else's place in a phrasing that names an office."""
        office = rng.choice(self.lists["offices"])
        if not _OFFICE.search(template):
            return None
        return _OFFICE.sub(lambda match: f"the {office} {match[1]}", template, count=1)

    def of_others(self, template: str) -> str | None:
        """An open question negated, or None where it is none."""
        if not (_WH.match(template) and template.endswith("?")):
            return None
        negated = re.sub(r"\b(is|are|does|can|has)\b", lambda match: _NOT[match[1]], template, count=1)
        return None if negated == template else negated

    def choice(self, name: str, rng: Random) -> str:
        """One entry of a list of wording.toml."""
        return rng.choice(self.lists[name])


def _wrap(template: str, text: str) -> str:
    return template.replace("{q}", text).replace("{i}", _lower(text))


def _lower(text: str) -> str:
    """The text to stand inside a sentence; a name, or a slot for one, keeps its capital."""
    if text.startswith("{S}"):
        return "{s}" + text[3:]
    first = text.split(" ", 1)[0]
    known = re.fullmatch(
        r"(Who|What|Which|Where|When|How|Why|Is|Are|Does|Do|Did|Can|May|Has|Have|Was|Were|Will|In|On|At|For|From|To|By|"
        r"Of|Until|After|If|The|Within|Under|Whose|Whom|Tell|Name|Give|With|My|Customers|Members|Up)('s)?", first
    )  # fmt: skip
    return text[:1].lower() + text[1:] if known else text


def _past(template: str) -> str | None:
    if not template.endswith("?") and not template.startswith(("The ", "{S} ")):
        return None
    verb = re.search(r"\b(is|are|does|do)\b|'s(?= the )|^(Is|Are|Does|Do)\b", template)
    return verb and template[: verb.start()] + _PAST_OF[verb[0]] + template[verb.end() :]


def _future(template: str) -> str | None:
    """Only where the verb can be changed without moving words."""
    for present, future in (("Who is ", "Who will be "), (" does ", " will ")):
        if present in template and template.endswith("?"):
            return template.replace(present, future, 1)
    return None


def _typo(text: str, subject: str, rng: Random) -> str:
    """A letter swapped, dropped or doubled in a word that is not the subject's."""
    protected = set(re.findall(r"\w+", subject.casefold()))
    words = [m for m in re.finditer(r"[A-Za-z]{4,}", text) if m[0].casefold() not in protected]
    if not words:
        return text
    word = rng.choice(words)
    at = word.start() + rng.randrange(1, len(word[0]) - 1)
    makes: tuple[Callable[[], str], ...] = (
        lambda: text[:at] + text[at + 1] + text[at] + text[at + 2 :],
        lambda: text[:at] + text[at + 1 :],
        lambda: text[:at] + text[at] + text[at:],
    )
    return rng.choice(makes)()


def load_wording(names: Names, extra_context: tuple[str, ...] = ()) -> Wording:
    """Read wording.toml."""
    table = tomllib.loads((Path(__file__).parent / "wording.toml").read_text(encoding="utf-8"))
    return Wording({name: tuple(entries) for name, entries in table.items()}, names, extra_context)
