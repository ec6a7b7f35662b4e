"""The kinds of pairs that frames give: each function draws one pair of its kind, or None where the frame has none.

What is in scope and what is not is decided here, once; README.md says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from random import Random

from demo.facts import capitalise, fill
from demo.scope.frames import Frame
from demo.scope.names import Names, near_number
from demo.scope.wording import Wording
from editors.edit import Claim, EditDescriptor, QuestionAnswer, Statement


@dataclass(frozen=True, slots=True)
class Pair:
    """A descriptor's text and an input that is in its scope or not; what it is about, and its kind."""

    descriptor: str
    input: str
    label: bool
    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class Scene:
    """An edit of a frame and a subject.

    Attributes:
        value: What the edit says.
        stated: Whether its text names the value, as statements and claims do.
        phrasing: The template of its text.
    """

    frame: Frame
    subject: str
    value: str
    edit: EditDescriptor
    stated: bool
    phrasing: str


@dataclass(frozen=True)
class FramePairs:
    """Draws pairs from frames, names and wording of one split."""

    frames: tuple[Frame, ...]
    names: Names
    wording: Wording

    def pair(self, kind: str, rng: Random) -> Pair | None:
        """A pair of one of the kinds in `IN_SCOPE` or `OUT_OF_SCOPE`; None where the drawn frame has no such pair."""
        scene = self.scene(rng, stated=True if kind in {"statement", "reversed statement"} else None)
        drawn = getattr(self, "_" + kind.replace(" ", "_"))(scene, rng)
        if drawn is None or drawn == scene.edit.text:
            return None
        if kind not in _DRESSED_ALREADY:
            drawn = self.wording.dress(drawn, scene.subject, rng)
        return Pair(scene.edit.text, drawn, kind in IN_SCOPE, kind, scene.subject)

    def scene(self, rng: Random, *, stated: bool | None = None) -> Scene:
        """An edit: a question and answer in two thirds of the cases, else a statement or a claim."""
        frame = rng.choice(self.frames)
        subject, value = self.subject(frame, rng), self.value(frame, rng)
        stated = rng.random() < 0.33 if stated is None else stated
        edit: EditDescriptor
        if not stated:
            phrasing = rng.choice(frame.descriptors)
            edit = QuestionAnswer(self._say(phrasing, subject), value)
        else:
            phrasing = frame.statement
            text = self._say(phrasing, subject, value)
            edit = Statement(text) if rng.random() < 0.6 else Claim(text, rng.random() < 0.5)
        return Scene(frame, subject, value, edit, stated, phrasing)

    def subject(self, frame: Frame, rng: Random) -> str:
        """A subject for a frame: a real one half of the time, where there are any."""
        if frame.real and (not frame.subject or rng.random() < 0.5):
            return rng.choice(frame.real)
        return self.names.subject(frame.subject, rng)

    def value(self, frame: Frame, rng: Random) -> str:
        """A value for a frame."""
        if frame.objects and (not frame.value or rng.random() < 0.6):
            return rng.choice(frame.objects)
        return self.names.value(frame.value, rng) if frame.value else ""

    def _say(self, template: str, subject: str, value: str = "", other: str = "") -> str:
        text = filled(template.replace("{t}", other), subject, value)
        jotted = template[0].islower() or template.startswith("{b}")
        return text if jotted else capitalise(text)

    def _paraphrases(self, scene: Scene) -> tuple[str, ...]:
        return tuple(ask for ask in scene.frame.asked if ask != scene.phrasing) or scene.frame.asked

    # In scope.

    def _paraphrase(self, scene: Scene, rng: Random) -> str | None:
        return self._say(rng.choice(self._paraphrases(scene)), scene.subject)

    _statement = _paraphrase

    def _user_form(self, scene: Scene, rng: Random) -> str | None:
        text = self._say(rng.choice((*self._paraphrases(scene), scene.phrasing)), scene.subject, scene.value)
        if rng.random() < 0.5 and text.endswith("?"):
            text = self.wording.polite(text, rng)
        return self.wording.sloppy(text, scene.subject, rng)

    def _context(self, scene: Scene, rng: Random) -> str | None:
        asked = self._say(rng.choice(self._paraphrases(scene)), scene.subject)
        if rng.random() < 0.5:
            return self.wording.after_talk(asked, rng)
        return f"{self._other_question(scene, rng)} {self.wording.bridge(rng)} {asked}"

    def _entailed(self, scene: Scene, rng: Random) -> str | None:
        value = scene.value if rng.random() < 0.4 else self.value(scene.frame, rng)
        if scene.frame.polar and rng.random() < 0.5:
            return self._say(rng.choice(scene.frame.polar), scene.subject, value)
        return self.wording.claim(self._say(scene.frame.statement, scene.subject, value), rng)

    def _current(self, scene: Scene, rng: Random) -> str | None:
        if scene.frame.lasting:
            return None
        asked = self.wording.of_now(rng.choice(scene.frame.asked), rng)
        return asked and self._say(asked, scene.subject)

    def _reversed_statement(self, scene: Scene, rng: Random) -> str | None:
        return self._reversed(scene, rng) if scene.stated else None

    # Out of scope.

    def _other_relation(self, scene: Scene, rng: Random) -> str | None:
        others = self._neighbours.get((scene.frame.group, scene.frame.subject), ())
        other = rng.choice(others) if others else scene.frame
        return None if other is scene.frame else self._say(rng.choice(other.asked), scene.subject)

    def _other_subject(self, scene: Scene, rng: Random) -> str | None:
        other = self.subject(scene.frame, rng)
        return None if other == scene.subject else self._of(other, scene, rng)

    def _near_name(self, scene: Scene, rng: Random) -> str | None:
        other = self.near(scene, rng)
        return other and self._of(other, scene, rng)

    def _near_number(self, scene: Scene, rng: Random) -> str | None:
        other = near_number(scene.subject, rng)
        return None if other == scene.subject else self._of(other, scene, rng)

    def _look_alike(self, scene: Scene, rng: Random) -> str | None:
        if not scene.frame.near:
            return None
        return self._say(rng.choice(scene.frame.near), scene.subject, other=self.subject(scene.frame, rng))

    def _office(self, scene: Scene, rng: Random) -> str | None:
        asked = self.wording.of_another_office(rng.choice(scene.frame.asked), rng)
        return asked and self._say(asked, scene.subject)

    def _temporal(self, scene: Scene, rng: Random) -> str | None:
        if scene.frame.lasting:
            return None
        asked = self.wording.of_then(rng.choice(scene.frame.asked), rng)
        return asked and self._say(asked, scene.subject)

    def _reversed(self, scene: Scene, rng: Random) -> str | None:
        if not scene.frame.reversed:
            return None
        return self._say(scene.frame.reversed, scene.subject, scene.value)

    def _reversed_question(self, scene: Scene, rng: Random) -> str | None:
        return None if scene.stated else self._reversed(scene, rng)

    def _negated(self, scene: Scene, rng: Random) -> str | None:
        asked = self.wording.of_others(rng.choice(scene.frame.asked))
        return asked and self._say(asked, scene.subject)

    def _part(self, scene: Scene, rng: Random) -> str | None:
        part = self.names.part(scene.subject, scene.frame.subject, rng)
        return part and self._of(part, scene, rng)

    def _other_claim(self, scene: Scene, rng: Random) -> str | None:
        others = self._neighbours.get((scene.frame.group, scene.frame.subject), ())
        if others and rng.random() < 0.5:
            other = rng.choice(others)
            return None if other is scene.frame else self._claim_of(other, scene.subject, rng)
        subject = self.near(scene, rng) if rng.random() < 0.6 else self.subject(scene.frame, rng)
        return None if subject in {None, scene.subject} else self._claim_of(scene.frame, str(subject), rng)

    def _earlier_question(self, scene: Scene, rng: Random) -> str | None:
        asked = self._say(rng.choice(scene.frame.asked), scene.subject)
        if not asked.endswith("?"):
            return None
        return f"{asked} {self.wording.bridge(rng)} {self._other_question(scene, rng)}"

    def _about(self, scene: Scene, rng: Random) -> str | None:
        mentioned = scene.frame.article + scene.subject
        other = scene.frame.article + self.subject(scene.frame, rng)
        return self._say(self.wording.choice("about", rng), mentioned, other=other)

    def _unrelated(self, scene: Scene, rng: Random) -> str | None:
        if rng.random() < 0.3:
            return self.wording.choice("chatter", rng)
        other = rng.choice(self.frames)
        if other is scene.frame or (other.group, other.subject) == (scene.frame.group, scene.frame.subject):
            return None
        return self._say(rng.choice(other.asked), self.subject(other, rng))

    # What several kinds share.

    def question(self, scene: Scene, rng: Random) -> str:
        """A question of the scene's frame on its subject, as a user may put it."""
        asked = self._say(rng.choice(scene.frame.asked), scene.subject)
        return self.wording.dress(asked, scene.subject, rng)

    @cached_property
    def _neighbours(self) -> dict[tuple[str, str], tuple[Frame, ...]]:
        """Frames on the same kind of subject that ask for something else."""
        found: dict[tuple[str, str], list[Frame]] = {}
        for frame in self.frames:
            found.setdefault((frame.group, frame.subject), []).append(frame)
        return {key: tuple(frames) for key, frames in found.items() if key[1]}

    def _of(self, subject: str, scene: Scene, rng: Random) -> str:
        return self._say(rng.choice(scene.frame.asked), subject)

    def _claim_of(self, frame: Frame, subject: str, rng: Random) -> str:
        return self.wording.claim(self._say(frame.statement, subject, self.value(frame, rng)), rng)

    def _other_question(self, scene: Scene, rng: Random) -> str:
        """A question that the edit does not answer, often on its subject."""
        for draw in rng.sample((self._look_alike, self._other_relation, self._near_name), 3):
            if (asked := draw(scene, rng)) and asked.endswith("?"):
                return asked
        return "What can you do?"

    def near(self, scene: Scene, rng: Random) -> str | None:
        """Another subject that looks like the scene's."""
        if scene.subject in scene.frame.real and rng.random() < 0.5:
            others = rng.sample(scene.frame.real, min(30, len(scene.frame.real)))
            alike = [other for other in others if other != scene.subject and _alike(other, scene.subject)]
            if alike:
                return rng.choice(alike)
        return self.names.near(scene.subject, scene.frame.subject, rng)


IN_SCOPE = {
    "paraphrase": 10.0, "user form": 7.0, "context": 5.0, "statement": 4.0, "entailed": 5.0, "current": 3.0,
    "reversed statement": 1.5,
}  # fmt: skip
"""Kinds of in-scope pairs, and how often each is drawn relative to all others."""

OUT_OF_SCOPE = {
    "look alike": 12.0, "near name": 8.0, "other relation": 6.0, "other subject": 5.0, "temporal": 5.5,
    "near number": 4.5, "office": 4.0, "other claim": 4.0, "earlier question": 4.0, "unrelated": 4.0, "part": 3.0,
    "negated": 3.0, "about": 3.0, "reversed question": 2.0,
}  # fmt: skip
"""Kinds of out-of-scope pairs, and how often each is drawn relative to all others."""

_DRESSED_ALREADY = frozenset({"paraphrase", "statement", "user form", "context", "earlier question"})
_THE_THE = re.compile(r"\b([Tt]he) the\b")


def filled(template: str, subject: str, value: str = "") -> str:
    """The template about a subject; where both bring an article, one of the two stays."""
    return _THE_THE.sub(r"\1", fill(template, subject, value))


def _alike(a: str, b: str) -> bool:
    shared = {word for word in a.split() if word[0].isupper()} & set(b.split())
    return bool(shared) or SequenceMatcher(None, a, b, autojunk=False).ratio() > 0.6
