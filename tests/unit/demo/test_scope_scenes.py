"""Scenes: facts written out by hand, from which the scope classifier learns far paraphrases and near look-alikes."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from demo.scope.kinds import Pair
from demo.scope.names import load_names
from demo.scope.scenes import Scene, ScenePairs, load_scenes
from demo.scope.splits import Split
from demo.scope.wording import load_wording

DRAWS = 3000


def loaded(of: Split) -> ScenePairs:
    return load_scenes(of, load_wording(load_names(of)))


@pytest.fixture(scope="module")
def drawn() -> list[Pair]:
    scenes, rng = loaded("train"), Random(1)
    draws = (scenes.in_scope, scenes.out_of_scope, scenes.opinion, scenes.no_opinion)
    return [pair for _ in range(DRAWS // 4) for draw in draws if (pair := draw(rng)) is not None]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene for of in ("train", "validation") for scene in loaded(of).scenes]


def bare(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()


def inside(scene: Scene) -> set[str]:
    return {bare(text) for text in (*scene.ask, *scene.state, *scene.settled)}


def outside(scene: Scene) -> set[str]:
    return {bare(text) for texts in scene.near.values() for text in texts}


def test_there_are_hundreds_of_scenes_of_different_subjects(scenes: list[Scene]):
    assert len(scenes) >= 300
    assert len({bare(scene.subject) for scene in scenes}) == len(scenes)


def test_every_scene_has_many_phrasings_and_look_alikes_and_none_is_both(scenes: list[Scene]):
    for scene in scenes:
        assert len(scene.ask) >= 7, scene.subject
        assert len(scene.settled) >= 3, scene.subject
        assert len(outside(scene)) >= 9, scene.subject
        assert scene.state, scene.subject
        assert not inside(scene) & outside(scene), scene.subject


def test_what_an_operator_would_post_does_not_begin_with_a_small_letter(scenes: list[Scene]):
    assert not [text for scene in scenes for text in (*scene.ask[:3], *scene.state) if text[0].islower()]


def test_about_as_many_pairs_of_either_label_are_drawn_as_asked_for(drawn: list[Pair]):
    assert len(drawn) > 0.9 * DRAWS
    assert 0.45 < sum(pair.label for pair in drawn) / len(drawn) < 0.55


def test_every_kind_has_one_label(drawn: list[Pair]):
    labels = {(pair.kind, pair.label) for pair in drawn}
    assert len({kind for kind, _ in labels}) == len(labels)


def test_many_types_of_look_alikes_are_drawn(drawn: list[Pair]):
    counts = Counter(pair.kind for pair in drawn if not pair.label)
    assert len([kind for kind, count in counts.items() if count >= 10]) >= 12


def test_a_name_is_exchanged_in_both_texts_of_a_pair(drawn: list[Pair]):
    """An in-scope phrasing that named its subject still names what the descriptor names."""
    renamed = [
        pair
        for pair in drawn
        if pair.kind == "scene, paraphrase" and pair.subject.casefold() not in pair.descriptor.casefold()
    ]
    both = [pair for pair in renamed if set(bare(pair.descriptor).split()) & set(bare(pair.input).split())]
    assert len(renamed) > 50
    assert len(both) > 0.95 * len(renamed)


def test_a_reversed_question_is_in_scope_of_a_statement_alone(drawn: list[Pair]):
    by_descriptor = {pair.kind: pair.descriptor for pair in drawn}
    assert not by_descriptor["scene, reversed statement"].endswith("?")
    kinds = {pair.kind: pair.label for pair in drawn}
    assert kinds["scene, reversed statement"]
    assert not kinds["scene, reversed question"]


def test_the_splits_share_no_scene():
    train, validation = loaded("train"), loaded("validation")
    assert not {scene.subject for scene in train.scenes} & {scene.subject for scene in validation.scenes}
    assert 0.1 < len(validation.scenes) / len(train.scenes) < 0.4
