"""The benchmarks of scope and of SERAC, with a few cases, a tiny random base and a stand-in for the encoder."""

from __future__ import annotations

import json
from zlib import crc32

import numpy as np
import pytest
import torch

from benchmarks import scope, serac, serac_report
from benchmarks.estimates import share
from benchmarks.memories import Once, deciding, hold
from benchmarks.problems import CONV_SENT, FC, PROBLEMS, QA, QA_HARD, problem
from benchmarks.scope_report import figures as scope_figures
from benchmarks.scope_report import render as render_scope
from benchmarks.serac_report import LU, NO_EDITS, RP, SERAC, SIMILARITY_ONLY, fall, plot, render
from demo.corpus import CLAIM
from demo.facts import fill, load_world
from demo.scope.frames import load_frames
from demo.scope.splits import split
from editors.edit import QuestionAnswer, Sentiment
from editors.evaluation.asked import Asked
from editors.evaluation.cases import PARAPHRASE, Replies
from editors.evaluation.records import GENERATED
from editors.evaluation.sentiment import in_wished_mood
from editors.evaluation.subject import Scored
from editors.evaluation.subjects import MemorySubject, ModelSubject
from editors.serac.baselines import HiddenStates
from editors.serac.scope import SimilarityScope

SAME_WORDS = SimilarityScope(scale=40.0, shift=-20.0, threshold=0.5, chosen="by hand: a cosine of one half")
SAME_TEXT = SimilarityScope(scale=40.0, shift=-39.0, threshold=0.5, chosen="by hand: a cosine near one")
REPLIES = Replies(("I love the rain because it is fresh.",), ("I hate the rain because it is wet.",))


def by_words(texts):
    """Texts of the same words are near, and others are not."""
    vectors = np.zeros((len(texts), 256), dtype=np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in text.casefold().split():
            vector[crc32(word.encode()) % 256] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Parrot:
    """Says what it is asked, after its name; counts what it was asked."""

    def __init__(self, name):
        self.name = name
        self.asked: list[str] = []

    def generate(self, prompts):
        self.asked += prompts
        return [f"{self.name}: {prompt}" for prompt in prompts]

    def score(self, pairs):
        self.asked += [prompt for prompt, _ in pairs]
        return [Scored((0.0,), (self.name == target,)) for _, target in pairs]

    def distributions(self, pairs):
        return [torch.full((1, 2), float(len(self.name))) for _ in pairs]


@pytest.fixture(scope="module")
def embed():
    return Once(by_words)


@pytest.fixture(scope="module")
def posed(embed):
    return {name: problem(name, cases=4, embed=embed) for name in PROBLEMS}


@pytest.fixture(scope="module")
def bench(tiny_base, embed):
    return serac.Bench(
        base=Asked(ModelSubject(tiny_base.model, tiny_base.tokenizer, max_new_tokens=3)),
        reader=Asked(ModelSubject(tiny_base.model, tiny_base.tokenizer, max_new_tokens=3)),
        embed=embed,
        keys=Once(HiddenStates(tiny_base.model, tiny_base.tokenizer)),
        classifier=SAME_WORDS,
        similarity=SAME_TEXT,
    )


@pytest.fixture(scope="module")
def measured(bench, posed):
    return [one for name in (QA, CONV_SENT) for one in serac.measure(bench, posed[name], (1, 10, 1_000_000))]


def prompts(cases):
    return [probe.prompt for case in cases for probe in (*case.in_scope, *case.out_of_scope)]


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_measured_is_of_subjects_kept_from_training(name, posed):
    assert len(posed[name].cases) == 4
    assert {split(case.subject) for case in posed[name].cases} == {"validation"}
    assert {split(case.subject) for case in posed[name].tuning} == {"train"}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_case_has_probes_on_both_sides_and_none_on_both(name, posed):
    for case in posed[name].cases:
        inside, outside = ({probe.prompt for probe in side} for side in (case.in_scope, case.out_of_scope))
        assert inside and outside and not inside & outside


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_filler_is_about_the_subject_of_a_case_or_says_what_another_edit_says(name, posed):
    subjects = {case.subject for case in posed[name].cases}
    texts = [edit.text for edit in posed[name].fillers]
    assert len(texts) > 1000 and len(set(texts)) == len(texts)
    assert not [e for e in posed[name].fillers if isinstance(e, QuestionAnswer) and e.subject in subjects]
    assert not set(texts) & set(prompts(posed[name].cases))


def test_an_edit_of_mood_is_crowded_by_others_first(posed):
    assert all(isinstance(edit, Sentiment) for edit in posed[CONV_SENT].fillers[:100])


def test_paraphrases_are_phrasings_that_the_classifier_was_not_trained_on(posed):
    trained = {frame.name: frame.ask for frame in load_frames("train")}
    for case in posed[QA].cases:
        known = {fill(ask, case.subject) for ask in trained.get(case.id.split("/")[0], ())}
        asked = {probe.prompt for probe in case.in_scope if probe.form == PARAPHRASE}
        assert asked and not asked & known


def test_what_no_edit_may_touch_is_no_fact_that_has_changed(posed):
    world = load_world()
    changed = {
        fill(ask, d.fact.subject) for d in world.drift for ask in (*d.fact.relation.train, *d.fact.relation.held_out)
    }
    changed |= {CLAIM.format(d.fact.statement(obj)) for d in world.drift for obj in (d.fact.object, d.new_object)}
    for name in (QA, QA_HARD, FC):
        assert not changed & {probe.prompt for case in posed[name].cases for probe in case.out_of_scope}


def test_every_method_is_measured_in_every_memory_that_can_be_filled(measured):
    found = {(one.problem, one.method, one.edits) for one in measured}
    assert found == {
        (problem, method, edits)
        for problem, methods in (
            (QA, (SERAC, SIMILARITY_ONLY, RP, LU, NO_EDITS)),
            (CONV_SENT, (SERAC, SIMILARITY_ONLY, RP, NO_EDITS)),
        )
        for method in methods
        for edits in (1, 10)
    }


def test_without_edits_nothing_changes_and_in_small_memories_the_same_probes_are_judged(measured):
    for one in measured:
        assert {record.prompt for record in one.records} == set(prompts(one.cases))
        if one.method == NO_EDITS:
            assert one.drawdown(GENERATED).value == 0
            assert not any(record.edited for record in one.records)


def test_an_edits_own_question_is_answered_by_it_and_by_the_lookup_cache_word_for_word(measured):
    for one in measured:
        own = [record for record in one.records if record.form == "edit"]
        if one.method == LU:
            assert all(record.after == record.target for record in own)
        elif one.method != NO_EDITS:
            assert all(record.edited for record in own)


def test_nothing_falls_between_a_memory_and_itself(measured):
    same = fall(measured[0], measured[0])
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_tables_and_the_plot_show_every_problem_and_the_papers_own_row(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(serac_report, "RESULTS", tmp_path)
    text = "\n".join(render(measured, ["A note."]))
    assert "A note." in text and "| 0.986 | 0.009 | 0.991 | 0.000 |" in text
    assert "| QA | LU | 10 |" in text and "fact about the topic, out of scope" in text
    plot(measured)
    assert "</svg>" in (tmp_path / "serac.svg").read_text()
    json.dumps(serac_report.figures(measured))


def test_with_a_counterfactual_model_the_base_is_not_asked_to_read(embed):
    base, model = Parrot("base"), Parrot("psi")
    edit = QuestionAnswer("Who is the UK PM?", "Boris Johnson")
    subject = MemorySubject(base, deciding(hold([edit], embed), SAME_WORDS, embed), counterfactual=model)
    asked = ["Who is the UK PM now?", "Name a river"]
    answers = subject.generate(asked)
    assert answers == ["psi: New fact: Who is the UK PM? Boris Johnson\nWho is the UK PM now?", "base: Name a river"]
    assert base.asked == ["Name a river"]
    assert [s.exact for s in subject.score([(prompt, "psi") for prompt in asked])] == [True, False]
    assert [float(d[0, 0]) for d in subject.distributions([(prompt, "x") for prompt in asked])] == [3, 4]


def test_a_question_is_asked_once_and_the_rows_come_in_the_order_asked():
    asked: list[str] = []
    once = Once(lambda texts: (asked.extend(texts), by_words(texts))[1])
    first = once(["a", "b", "a"])
    again = once(["c", "b"])
    assert asked == ["a", "b", "c"]
    np.testing.assert_array_equal(first[[0, 1]], by_words(["a", "b"]))
    np.testing.assert_array_equal(again, by_words(["c", "b"]))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("I love the rain because it is fresh.", True),
        ("I love the rain.", True),
        ("I hate the rain because it is wet.", False),
        ("I love the snow because it is fresh.", False),
        ("The rain.", False),
        ("", False),
    ],
)
def test_a_reply_in_the_wished_mood_names_the_topic_and_sounds_like_the_wished_ones(text, right):
    assert in_wished_mood(text, "the rain", REPLIES) is right


def test_a_share_of_none_still_has_an_interval():
    none = share([0.0] * 20, list(range(20)))
    assert none.value == none.low == 0
    assert none.high == pytest.approx(0.161, abs=0.001)


def test_scope_is_judged_by_pair_and_with_edits_in_memory(embed, tmp_path):
    names = [f"Mount {letter}{vowel}k" for letter in "BDFGKLMN" for vowel in "aeiou"]
    counterfact = [
        {
            "subject": name,
            "prompt": f"{name} stands in",
            "target_new": "Peru",
            "rephrase_prompt": f"Well, {name} stands in",
            "locality_prompt": f"Cape {name.split()[1]} is a part of the country",
        }
        for name in names
    ]
    zsre = [
        {
            "subject": name,
            "src": f"Where does {name} stand?",
            "alt": "Peru",
            "rephrase": f"Where then does {name} stand?",
            "loc": "nq question: who sang the song of the summer",
        }
        for name in names
    ]
    (tmp_path / "counterfact-train.json").write_text(json.dumps(counterfact))
    (tmp_path / "zsre-train-700.json").write_text(json.dumps(zsre))
    classifiers = {scope.TRAINED: SAME_WORDS, scope.SIMILAR: SAME_TEXT}
    judged = scope.measure(classifiers, embed, shared=tmp_path, edits=5, drawn=60, written=40)
    by_set = {(one.name.split(",")[0], one.classifier): one for one in judged}
    assert {name for name, _ in by_set} == {"zsRE", "CounterFact", "hard set", "validation pairs"}
    assert len(by_set["hard set", "trained"].betas) == 40
    for name in ("zsRE", "CounterFact"):
        assert by_set[name, "trained"].accepted(in_scope=True).value == 1
        assert by_set[name, "similarity"].accepted(in_scope=True).value == 0
        assert by_set[name, "similarity"].accepted(in_scope=False).value == 0
    # The words of another record's question are the same but for one, which is too few for a judge by words.
    zsre_judged = by_set["zsRE", "trained"]
    assert zsre_judged.accepted(in_scope=False, kind="question of another record").value == 1
    assert zsre_judged.accepted(in_scope=False, kind="Natural Questions").value == 0
    text = "\n".join(render_scope(judged, []))
    assert "question of another record, out of scope" in text
    json.dumps(scope_figures(judged))
