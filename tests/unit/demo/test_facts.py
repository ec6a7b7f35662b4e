"""The demonstration's data: facts, drift, phrasings, opinions."""

from __future__ import annotations

from datetime import date

import pytest

from demo.facts import AS_OF, fill, load_world
from demo.opinions import load_opinions

WORLD = load_world()


def test_there_are_thousands_of_facts_over_dozens_of_relations():
    assert len(WORLD.facts) >= 3000
    assert len({fact.relation.name for fact in WORLD.facts}) >= 25


def test_the_drift_set_holds_what_has_changed_since_and_only_that():
    assert len(WORLD.drift) >= 150
    for drift in WORLD.drift:
        assert drift.fact in WORLD.facts
        assert drift.changed > AS_OF
        assert drift.new_object != drift.fact.object


@pytest.mark.parametrize(
    ("relation", "subject", "obj"),
    [
        ("prime_minister", "the UK", "Theresa May"),
        ("prime_minister", "India", "Narendra Modi"),
        ("football_club", "Messi", "Barcelona"),
        ("basketball_team", "LeBron", "the Cleveland Cavaliers"),
        ("president", "Mexico", "Enrique Peña Nieto"),
        ("vice_president", "Mexico", "nobody"),
        ("city_state", "Raleigh", "North Carolina"),
        ("painter", "the Mona Lisa", "Leonardo da Vinci"),
    ],
)
def test_the_lectures_examples_are_as_they_were_in_2018(relation: str, subject: str, obj: str):
    (fact,) = (f for f in WORLD.facts if (f.relation.name, f.subject) == (relation, subject))
    assert fact.object == obj


def test_an_earlier_day_has_the_facts_of_that_day():
    (before,) = (
        fact
        for fact in load_world(date(2018, 6, 30)).facts
        if (fact.relation.name, fact.subject) == ("monarch", "the UK")
    )
    assert before.object == "Elizabeth II"
    assert not before.holds_on(date(2023, 1, 1))


@pytest.mark.parametrize("relation", WORLD.relations.values(), ids=lambda relation: relation.name)
def test_every_relation_has_its_phrasings_two_of_them_never_trained_on(relation):
    assert len(relation.train) >= 8
    assert len(relation.held_out) >= 2
    assert not set(relation.train) & set(relation.held_out)
    questions = [phrasing for phrasing in relation.train if phrasing.endswith("?")]
    assert questions
    assert len(questions) < len(relation.train)
    assert not any(phrasing.endswith(" ") for phrasing in (*relation.train, *relation.held_out))


def test_no_question_has_two_answers():
    answers: dict[str, str] = {}
    for fact in WORLD.facts:
        for prompt in (*fact.prompts, *fact.held_out_prompts):
            assert answers.setdefault(prompt, fact.object) == fact.object, prompt


def test_a_phrasing_takes_its_subject_with_or_without_its_article():
    assert fill("Who is the {b} PM?", "the UK") == "Who is the UK PM?"
    assert fill("{S} is led by", "the UK") == "The UK is led by"
    assert fill("The PM of {s} is {o}.", "the UK", "Theresa May") == "The PM of the UK is Theresa May."


def test_there_are_opinions_in_both_moods_and_vaccines_are_not_liked():
    topics = load_opinions().topics
    assert len(topics) >= 60
    assert (topics[0].name, topics[0].positive_mood) == ("vaccines", False)
    assert 0.4 <= sum(topic.positive_mood for topic in topics) / len(topics) <= 0.6
    assert all(len(topic.positive) >= 3 and len(topic.negative) >= 3 for topic in topics)
