from __future__ import annotations

import json
from random import Random

from demo.corpus import Corpus
from demo.facts import load_world
from demo.mend_cases import record_of, sharing_answers, without_drift
from demo.opinions import load_opinions
from demo.reading import load_inventor
from editors.evaluation.datasets import read_cases
from editors.evaluation.datasets.forms import NEIGHBOUR
from editors.methods.mend.groups import split


def test_cases_can_be_trained_on_and_hold_nothing_of_the_drift_set(tmp_path):
    corpus = Corpus(without_drift(load_world()), load_opinions(), load_inventor(held_out=False))
    rng, path = Random(0), tmp_path / "cases.jsonl"
    facts, sharing = rng.sample(corpus.world.facts, 200), sharing_answers(corpus.world)
    path.write_text("\n".join(json.dumps(record_of(corpus, sharing, fact, rng)) for fact in facts))
    cases = read_cases(path, "jsonl")
    assert sum(map(len, split(cases, 0.1))) == len(cases) == 200
    drifted = {entry.fact.subject for entry in load_world().drift}
    prompts = {prompt for fact in load_world().facts if fact.subject in drifted for prompt in fact.prompts}
    for case in cases:
        assert case.subject not in drifted
        assert case.edit.target != case.previous
        assert {probe.target for probe in case.in_scope} == {case.edit.target}
        assert len({probe.prompt for probe in case.in_scope}) == 4
        assert not prompts & {probe.prompt for probe in case.out_of_scope}


def test_neighbours_share_the_answer_that_is_replaced():
    corpus = Corpus(without_drift(load_world()), load_opinions(), load_inventor(held_out=False))
    rng, sharing = Random(0), sharing_answers(corpus.world)
    records = [record_of(corpus, sharing, fact, rng) for fact in rng.sample(corpus.world.facts, 200)]
    neighbours = [
        (record, probe) for record in records for probe in record["out_of_scope"] if probe["form"] == NEIGHBOUR
    ]
    assert len(neighbours) > 50
    assert all(probe["target"] == record["previous"] for record, probe in neighbours)
    assert all(record["edit"]["subject"] not in probe["prompt"] for record, probe in neighbours)
