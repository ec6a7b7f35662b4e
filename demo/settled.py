"""Edits, and prompts that they settle: what the bundle's counterfactual model is trained on.

Nothing of it is about a subject, and no opinion is asked for in a phrasing, that the scope classifier's split keeps for
validation: those are what the benchmarks ask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

from demo.claims import draw_claim
from demo.corpus import Corpus
from demo.facts import World, load_world
from demo.moods import Moods, load_moods
from demo.opinions import load_opinions
from demo.reading import load_inventor
from demo.scope.frames import load_frames
from demo.scope.kinds import FramePairs
from demo.scope.names import load_names
from demo.scope.splits import split
from demo.scope.wording import load_wording
from editors.edit import Claim
from editors.serac.training.reading import ReadingExample

_KINDS = (0.18, 0.18, 0.16, 0.28, 0.2)
"""How often each kind of example is drawn, in the order of `Settled.draw`."""
_DRESSED = 0.3
"""Share of the questions that are put as users do, of those that would not be anyway."""


@dataclass(frozen=True)
class Settled:
    """Draws examples.

    Attributes:
        corpus: Of facts and inventions.
        frames: Gives questions on things of many fields.
        moods: Gives opinions.
    """

    corpus: Corpus
    frames: FramePairs
    moods: Moods

    def draw(self, rng: Random) -> ReadingExample:
        """An edit, a prompt that it settles, and the answer that follows."""
        kinds = (self._invented, self._overridden, self._framed, self._claimed, self._felt)
        return rng.choices(kinds, _KINDS)[0](rng)

    def _invented(self, rng: Random) -> ReadingExample:
        return self._dressed(self.corpus.reading_invented(rng), rng)

    def _overridden(self, rng: Random) -> ReadingExample:
        return self._dressed(self.corpus.reading_overridden(rng), rng)

    def _framed(self, rng: Random) -> ReadingExample:
        """A question of a frame, as a user may put it; an edit that denies a claim has no answer to give."""
        scene = self.frames.scene(rng)
        while not scene.value or (isinstance(scene.edit, Claim) and not scene.edit.label):
            scene = self.frames.scene(rng)
        return ReadingExample(scene.edit, self.frames.question(scene, rng), scene.value)

    def _claimed(self, rng: Random) -> ReadingExample:
        return draw_claim(self.corpus, self.frames, rng)

    def _felt(self, rng: Random) -> ReadingExample:
        """About a topic; one time in five about a thing of any kind."""
        draw = rng.random()
        if draw < 0.1:
            return self.moods.draw(rng, thing=rng.choice(self.corpus.world.facts).subject)
        if draw < 0.2:
            return self.moods.draw(rng, thing=self.corpus.name(rng.choice(("person", "company", "city")), rng))
        return self.moods.draw(rng)

    def _dressed(self, example: ReadingExample, rng: Random) -> ReadingExample:
        if rng.random() >= _DRESSED or not example.prompt.endswith("?"):
            return example
        return replace(example, prompt=self.frames.wording.dress(example.prompt, "", rng))


@cache
def load_settled(tokens: tuple[str, ...] = ()) -> Settled:
    """Of the training split.

    Args:
        tokens: Pieces for invented names, see `demo.reading.scrambled_name`.
    """
    names = load_names("train")
    frames = FramePairs(load_frames("train"), names, load_wording(names))
    corpus = Corpus(
        _trained_on(load_world()),
        load_opinions(),
        load_inventor(held_out=False),
        strangeness=0.7,
        tokens=tokens,
        marks=True,
    )
    return Settled(corpus, frames, load_moods())


def _trained_on(world: World) -> World:
    """The facts about subjects that are not kept for validation."""
    return replace(world, facts=tuple(fact for fact in world.facts if split(fact.subject) == "train"), drift=())
