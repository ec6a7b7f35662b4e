from __future__ import annotations

import numpy as np
import pytest

from editors.edit import QuestionAnswer
from editors.serac.decide import decide
from editors.serac.memory import EditMemory, MemoryEntry
from editors.serac.scope import ScopePair, SimilarityScope

COSINE = SimilarityScope(scale=10.0, shift=-5.0, threshold=0.5, chosen="beta .5 at cosine .5")


class ByTarget:
    """Judges by the edit alone, so that beta and similarity can disagree."""

    threshold = 0.5

    def __init__(self) -> None:
        self.calls: list[list[ScopePair]] = []

    def beta(self, pairs):
        self.calls.append(list(pairs))
        return [float(pair.descriptor.target) for pair in pairs]


def at(cosine):
    """A unit vector at that cosine from the query."""
    return np.array([cosine, np.sqrt(1 - cosine**2), 0], dtype=np.float32)


QUERY = at(1.0)


def put(memory, edit_id, *vectors, beta=0.0, n_out=0, threshold=None):
    texts = tuple(f"text {i} of {edit_id}" for i in range(len(vectors)))
    split = len(vectors) - n_out
    memory.put(
        edit_id,
        MemoryEntry(
            descriptor=QuestionAnswer(prompt=texts[0], target=str(beta)),
            in_scope=texts[:split],
            out_of_scope=texts[split:],
            vectors=np.stack(vectors),
            threshold=threshold,
        ),
    )


def ask(memory, classifier=COSINE, *, k=8, skip=None, default_threshold=0.5):
    [decision] = decide(
        memory, classifier, ["the input"], QUERY[None], k=k, default_threshold=default_threshold, skip=skip
    )
    return decision


def answering(decision):
    return None if decision.answer is None else decision.answer.edit_id


@pytest.fixture
def memory():
    return EditMemory(3)


def test_an_empty_memory_leaves_the_input_to_the_base(memory):
    classifier = ByTarget()
    assert ask(memory, classifier).candidates == ()
    assert ask(memory, classifier).answer is None
    assert classifier.calls == []


def test_the_best_edit_answers_when_it_reaches_the_threshold(memory):
    put(memory, 1, at(0.6))
    put(memory, 2, at(0.9))
    decision = ask(memory)
    assert answering(decision) == 2
    assert [c.edit_id for c in decision.candidates] == [2, 1]
    assert decision.answer.beta == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-6)


def test_below_the_threshold_the_base_answers_and_the_candidates_say_why(memory):
    put(memory, 1, at(0.4))
    decision = ask(memory)
    assert decision.answer is None
    [candidate] = decision.candidates
    assert (candidate.edit_id, candidate.matched_text, candidate.threshold) == (1, "text 0 of 1", 0.5)
    assert candidate.beta < 0.5


def test_reaching_the_threshold_exactly_is_enough(memory):
    put(memory, 1, at(0.3), beta=0.75)
    assert answering(ask(memory, ByTarget(), default_threshold=0.75)) == 1
    assert answering(ask(memory, ByTarget(), default_threshold=np.nextafter(0.75, 1))) is None


def test_the_classifier_and_not_the_similarity_decides_who_is_best(memory):
    put(memory, 1, at(0.9), beta=0.6)
    put(memory, 2, at(0.3), beta=0.7)
    assert answering(ask(memory, ByTarget())) == 2


def test_equal_betas_go_to_the_nearer_edit_and_then_to_the_older(memory):
    put(memory, 3, at(0.9), beta=0.7)
    put(memory, 2, at(0.9), beta=0.7)
    put(memory, 1, at(0.8), beta=0.7)
    assert [c.edit_id for c in ask(memory, ByTarget()).candidates] == [2, 3, 1]


def test_an_excluded_edit_gives_way_to_the_next(memory):
    put(memory, 1, at(0.9), at(0.95), n_out=1)
    put(memory, 2, at(0.8))
    decision = ask(memory)
    assert answering(decision) == 2
    assert [(c.edit_id, c.excluded) for c in decision.candidates] == [(1, True), (2, False)]


def test_an_edit_below_its_own_threshold_gives_way_to_the_next(memory):
    put(memory, 1, at(0.9), threshold=0.999)
    put(memory, 2, at(0.8))
    assert answering(ask(memory)) == 2


def test_an_edit_may_ask_for_less_than_the_default(memory):
    put(memory, 1, at(0.4), threshold=0.1)
    assert answering(ask(memory)) == 1


def test_a_skipped_edit_is_as_good_as_absent(memory):
    put(memory, 1, at(0.9))
    put(memory, 2, at(0.8))
    decision = ask(memory, k=1, skip=lambda edit_id: edit_id == 1)
    assert [c.edit_id for c in decision.candidates] == [2]
    assert answering(decision) == 2


def test_inputs_are_judged_together_in_one_call_and_answered_in_order(memory):
    put(memory, 1, at(0.9), beta=0.9)
    put(memory, 2, at(-0.9), beta=0.8)
    classifier = ByTarget()
    decisions = decide(memory, classifier, ["near", "far"], np.stack([QUERY, -QUERY]), k=1, default_threshold=0.5)
    assert [d.answer.edit_id for d in decisions] == [1, 2]
    [pairs] = classifier.calls
    assert [(pair.text, pair.matched_text) for pair in pairs] == [("near", "text 0 of 1"), ("far", "text 0 of 2")]
    assert [pair.similarity for pair in pairs] == pytest.approx([0.9, 0.9], abs=1e-6)
