"""The bundle's suites: what is asked, that it can be answered, and that it stays what it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.facts import load_world
from demo.opinions import load_opinions
from demo.suites import DESCRIPTIONS, LOOK_ALIKE, NEAR_NAME, OTHER_TOPIC, SAME_RELATION, SAME_SUBJECT, SUITES
from editors.edit import Claim, QuestionAnswer, Sentiment, Statement
from editors.evaluation.cases import COMPOSED, EDIT, ENTAILED, PARAPHRASE, Case
from editors.evaluation.datasets.forms import NEIGHBOUR

WORLD = load_world()
ANSWERS = {prompt: fact.object for fact in WORLD.facts for prompt in fact.prompts + fact.held_out_prompts}
CHANGES = {f"{entry.fact.relation.name}/{entry.fact.subject}": entry for entry in WORLD.drift}
EDITING = ["drift", "hard", "claims"]

every_suite = pytest.mark.parametrize("suite", SUITES)


def pairs(name: str) -> Iterator[tuple[Case, Case]]:
    yield from zip(SUITES[name](), SUITES["drift"](), strict=True)


def test_each_suite_is_described():
    assert SUITES.keys() == DESCRIPTIONS.keys()
    assert all(line.endswith(".") and "\n" not in line for line in DESCRIPTIONS.values())


def test_no_prompt_is_asked_of_two_facts_so_no_question_of_a_suite_has_two_right_answers():
    asked = Counter(prompt.lower() for fact in WORLD.facts for prompt in {*fact.prompts, *fact.held_out_prompts})
    assert [prompt for prompt, count in asked.items() if count > 1] == []


@every_suite
def test_a_suite_has_ids_of_its_own_and_targets_wherever_the_edit_should_answer(suite: str):
    cases = SUITES[suite]()
    assert len({case.id for case in cases}) == len(cases)
    for case in cases:
        assert case.in_scope
        assert all(probe.prompt and probe.target for probe in case.in_scope)
        assert all(probe.form in {EDIT, PARAPHRASE, ENTAILED, COMPOSED} for probe in case.in_scope)
        assert all(probe.prompt and probe.target != "" for probe in case.out_of_scope)


@every_suite
def test_a_case_asks_nothing_twice(suite: str):
    for case in SUITES[suite]():
        prompts = [probe.prompt for probe in (*case.in_scope, *case.out_of_scope)]
        assert len(set(prompts)) == len(prompts), case.id


def test_suites_are_the_same_in_another_process():
    program = "from demo.suites import SUITES; print([repr(s()[::97]) for s in SUITES.values()])"
    elsewhere = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    )
    assert elsewhere.stdout.strip() == repr([repr(suite()[::97]) for suite in SUITES.values()])


def test_the_facts_suite_asks_for_every_fact_without_an_edit():
    cases = SUITES["facts"]()
    assert len(cases) == len(WORLD.facts)
    for case, fact in zip(cases, WORLD.facts, strict=True):
        assert case.edit is None
        assert {probe.prompt for probe in case.in_scope} == {fact.prompts[0], *fact.held_out_prompts}
        assert {probe.target for probe in case.in_scope} == {fact.object}


@pytest.mark.parametrize("suite", ["drift", "hard"])
def test_an_edit_gives_the_new_answer_to_a_question_on_its_subject(suite: str):
    assert {case.id for case in SUITES[suite]()} == CHANGES.keys()
    for case in SUITES[suite]():
        change = CHANGES[case.id]
        assert case.edit == QuestionAnswer(change.fact.prompts[0], change.new_object, change.fact.subject)
        assert change.fact.subject in change.fact.prompts[0]
        assert (case.previous, case.subject) == (change.fact.object, change.fact.subject)
        assert [probe.prompt for probe in case.in_scope if probe.form == EDIT] == [change.fact.prompts[0]]
        assert {probe.target for probe in case.in_scope} == {change.new_object}
        assert {ANSWERS[probe.prompt] for probe in case.in_scope} == {change.fact.object}


@pytest.mark.parametrize("suite", EDITING)
def test_what_is_out_of_scope_of_one_edit_is_in_the_scope_of_none(suite: str):
    cases = SUITES[suite]()
    inside = {probe.prompt for case in cases for probe in case.in_scope}
    changed = {p for entry in WORLD.drift for p in (*entry.fact.prompts, *entry.fact.held_out_prompts)}
    changed |= {f"True or false: {entry.fact.statement()}" for entry in WORLD.drift}
    assert not {probe.prompt for case in cases for probe in case.out_of_scope} & (inside | changed)


@pytest.mark.parametrize("suite", ["drift", "hard"])
def test_what_is_out_of_scope_comes_with_what_is_true_of_it(suite: str):
    for case in SUITES[suite]():
        for probe in case.out_of_scope:
            assert probe.target == (None if probe.form == LOOK_ALIKE else ANSWERS[probe.prompt])
            if probe.form in {SAME_SUBJECT, SAME_RELATION, NEAR_NAME}:
                assert probe.target not in {case.previous, CHANGES[case.id].new_object}


def test_neighbours_share_the_answer_that_the_edit_replaces():
    neighbours = [(case, probe) for case in SUITES["drift"]() for probe in case.out_of_scope if probe.form == NEIGHBOUR]
    assert neighbours
    assert all(probe.target == case.previous for case, probe in neighbours)


def test_the_hard_suite_asks_in_other_words_than_the_drift_suite():
    def shared(case: Case) -> float:
        assert isinstance(case.edit, QuestionAnswer)
        own = set(case.edit.prompt.lower().split())
        others = [set(probe.prompt.lower().split()) for probe in case.in_scope if probe.form == PARAPHRASE]
        return sum(len(own & words) / len(own | words) for words in others) / len(others)

    scores = [(shared(hard), shared(drift)) for hard, drift in pairs("hard")]
    assert sum(hard for hard, _ in scores) < 0.9 * sum(drift for _, drift in scores)


def test_the_hard_suite_leaves_alone_what_looks_like_the_edit():
    (monarch,) = (case for case in SUITES["hard"]() if case.id == "prime_minister/Iceland")
    asked = {probe.form: probe.prompt for probe in reversed(monarch.out_of_scope)}
    assert asked[LOOK_ALIKE] == "Who was the first prime minister of Iceland?"
    assert asked[SAME_SUBJECT].endswith("Iceland?")
    assert asked[SAME_RELATION].startswith("Who is the prime minister of ")
    for case in SUITES["hard"]():
        assert case.out_of_scope[0].form == LOOK_ALIKE
        assert any(probe.form == SAME_RELATION for probe in case.out_of_scope)


def test_claims_follow_from_the_edit_or_contradict_it():
    for case in SUITES["claims"]():
        change = CHANGES[case.id]
        told = {probe.prompt: probe.target for probe in case.in_scope}
        assert told[change.fact.prompts[0]] == change.new_object
        assert told[f"True or false: {change.fact.statement(change.new_object)}"] == "True"
        assert told[f"True or false: {change.fact.statement()}"] == "False"
        assert sorted(told.values()).count("False") == 2


def test_claims_out_of_scope_are_true_of_the_facts_they_are_about():
    stated = {f"True or false: {fact.statement()}" for fact in WORLD.facts}
    for case in SUITES["claims"]():
        assert all((probe.prompt in stated) == (probe.target == "True") for probe in case.out_of_scope)


def test_claims_are_told_by_edits_of_three_kinds_each_with_its_own_prompt():
    kinds = Counter(type(case.edit) for case in SUITES["claims"]())
    assert kinds.keys() == {QuestionAnswer, Statement, Claim}
    assert max(kinds.values()) - min(kinds.values()) <= 1
    for case in SUITES["claims"]():
        own = [probe.target for probe in case.in_scope if probe.form == EDIT]
        match case.edit:
            case QuestionAnswer(_, target):
                assert (own, case.previous) == ([target], CHANGES[case.id].fact.object)
            case Claim(_, label):
                assert (own, case.previous) == ([str(label)], str(not label))
            case _:
                assert (own, case.previous) == ([], None)


def test_opinions_are_turned_and_come_with_sentences_of_both_moods():
    topics = {topic.name: topic for topic in load_opinions().topics}
    cases = SUITES["opinions"]()
    assert {case.id for case in cases} == topics.keys()
    for case in cases:
        topic = topics[case.id]
        assert case.edit == Sentiment(topic.name, not topic.positive_mood)
        assert case.replies is not None
        assert case.replies.wished == topic.sentences(positive=not topic.positive_mood)
        assert case.replies.opposite == topic.sentences(positive=topic.positive_mood)
        assert {probe.target for probe in case.in_scope} <= set(case.replies.wished)
        others = [probe for probe in case.out_of_scope if probe.form == OTHER_TOPIC]
        assert others
        assert all(topic.name not in probe.prompt for probe in others)


def test_the_documentation_lists_the_suites_and_the_forms_they_leave_alone():
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8").split("## Suites")[1]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.MULTILINE))
    assert rows == DESCRIPTIONS
    for name, suite in SUITES.items():
        (row,) = re.findall(rf"^\| `{name}` .*$", page, re.MULTILINE)
        forms = {probe.form for case in suite() for probe in case.out_of_scope}
        assert set(re.findall("`([^`]+)`", row)) == {name, *forms}
