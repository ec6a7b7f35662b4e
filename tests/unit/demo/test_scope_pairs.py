"""Training pairs for the scope classifier, and the hard set that measures it."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest

import demo.scope
from demo.scope.frames import load_frames
from demo.scope.kinds import IN_SCOPE, OUT_OF_SCOPE, Pair
from demo.scope.nearest import NearestPairs
from demo.scope.pairs import main, pairs
from demo.scope.splits import split
from editors.serac.encoder import SentenceEncoder

SIZE = 6000
HARD_FILE = Path(demo.scope.__file__).parent / "hard.jsonl"
HARD = [json.loads(line) for line in HARD_FILE.read_text(encoding="utf-8").splitlines()]
DESCRIPTOR_KINDS = {"qa", "fact", "statement", "sentiment"}


@pytest.fixture(scope="module")
def drawn() -> list[Pair]:
    return list(pairs(SIZE, seed=1))


@pytest.fixture(scope="module")
def kept() -> list[Pair]:
    return list(pairs(SIZE // 3, seed=1, of="validation"))


def bare(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).removeprefix("the ").strip()


def test_the_same_seed_draws_the_same_pairs(drawn: list[Pair]):
    assert list(islice(pairs(SIZE, seed=1), 300)) == drawn[:300]
    assert list(islice(pairs(SIZE, seed=2), 300)) != drawn[:300]


def test_every_kind_is_there_about_as_often_as_it_is_weighed(drawn: list[Pair]):
    counts = Counter(pair.kind for pair in drawn)
    weights = IN_SCOPE | OUT_OF_SCOPE
    share_of_weight = sum(counts[kind] for kind in weights) / sum(weights.values())
    for kind, weight in weights.items():
        assert 0.7 < counts[kind] / (share_of_weight * weight) < 1.4, kind
    sentiment = ("opinion on the topic", "fact about the topic", "opinion on another topic")
    assert all(counts[kind] > SIZE / 200 for kind in sentiment)


def test_about_a_third_is_in_scope(drawn: list[Pair], kept: list[Pair]):
    for pairs_of_a_split in (drawn, kept):
        assert 0.28 < sum(pair.label for pair in pairs_of_a_split) / len(pairs_of_a_split) < 0.42


def test_no_pair_comes_twice_or_with_both_labels(drawn: list[Pair]):
    assert len({(pair.descriptor.casefold(), pair.input.casefold()) for pair in drawn}) == len(drawn)


def test_near_pairs_join_two_subjects_of_which_neither_text_names_the_others():
    known = [
        Pair("What is the capital of Austria?", "austria's capital", label=True, kind="paraphrase", subject="Austria"),
        Pair(
            "Which city is Austria's capital?",
            "What city governs Austria?",
            label=True,
            kind="paraphrase",
            subject="Austria",
        ),
        Pair(
            "What is the capital of Australia?",
            "australia's capital",
            label=True,
            kind="paraphrase",
            subject="Australia",
        ),
        Pair(
            "Lower Austria is in the east of Austria.",
            "Where is Lower Austria?",
            label=True,
            kind="statement",
            subject="Lower Austria",
        ),
    ]
    rng, near = Random(0), NearestPairs(known)
    found = {(pair.descriptor, pair.input) for pair in (near.out_of_scope(rng) for _ in range(300)) if pair}
    austria, capital, australia, lower = ((pair.descriptor, pair.input) for pair in known)
    assert found == {
        *((edit, australia[1]) for edit in (austria[0], capital[0], lower[0])),
        *((australia[0], asked) for asked in (austria[1], capital[1], lower[1])),
        *((edit, lower[1]) for edit in (austria[0], capital[0])),  # the name is part of the input's own
    }


def test_near_pairs_are_nearer_than_an_input_and_the_edit_of_any_other_subject():
    found = [pair for pair in pairs(400, seed=1, near=300) if pair.kind == "nearest"]
    encoder = SentenceEncoder()
    edits, inputs = (encoder.encode([getattr(p, side) for p in found]) for side in ("descriptor", "input"))
    cosines = inputs @ edits.T
    assert np.diag(cosines).mean() > cosines.mean() + 0.1


def test_no_phrasing_has_a_slot_left_open(drawn: list[Pair], kept: list[Pair]):
    for pair in (*drawn, *kept):
        assert not re.search(r"[{}]|\bthe the\b", f"{pair.descriptor} {pair.input}"), pair


def test_a_kind_has_one_label(drawn: list[Pair]):
    labels: dict[str, set[bool]] = {}
    for pair in drawn:
        labels.setdefault(pair.kind, set()).add(pair.label)
    assert all(len(seen) == 1 for seen in labels.values())


def test_the_splits_share_no_subject(drawn: list[Pair], kept: list[Pair]):
    assert {split(pair.subject) for pair in drawn} == {"train"}
    assert {split(pair.subject) for pair in kept} == {"validation"}


def test_a_fifth_of_the_frames_and_of_the_phrasings_is_kept_for_validation():
    trained = {frame.name: frame for frame in load_frames("train")}
    kept = {frame.name: frame for frame in load_frames("validation")}
    whole = kept.keys() - trained.keys()
    assert 0.1 < len(whole) / len(trained | kept) < 0.3
    for name in kept.keys() & trained.keys():
        assert not set(kept[name].asked) & set(trained[name].ask)


def test_there_are_hundreds_of_frames_each_with_look_alikes():
    written = [frame for of in ("train", "validation") for frame in load_frames(of) if frame.near]
    assert len({frame.name for frame in written}) >= 150
    assert len({frame.group for frame in written}) >= 14


def test_the_command_writes_the_fields_a_training_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = tmp_path / "pairs.jsonl"
    monkeypatch.setattr("sys.argv", ["pairs", "--output", str(output), "--size", "50", "--seed", "3"])
    main()
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 50
    for line in lines:
        assert list(line) == ["descriptor", "input", "label", "kind", "subject"]
        assert line["label"] in {0, 1}


def test_without_the_shared_files_it_says_which_is_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"counterfact-train\.json is missing"):
        next(pairs(10, seed=1, shared=tmp_path))


def test_the_shared_sets_bring_pairs_of_both_labels():
    shared = Path("../shared/data")
    if not (shared / "counterfact-train.json").is_file():
        pytest.skip("../shared/data is absent")
    counts = Counter((pair.kind, pair.label) for pair in pairs(2000, seed=1, shared=shared))
    for kind in ("counterfact", "zsre"):
        assert counts[f"{kind} in scope", True]
        assert counts[f"{kind} out of scope", False]


def test_the_hard_set_is_well_formed_and_balanced():
    assert len(HARD) >= 500
    assert len({(item["descriptor"], item["input"]) for item in HARD}) == len(HARD)
    for item in HARD:
        assert set(item) == {"descriptor", "descriptor_kind", "input", "label", "type", "subject"}
        assert item["descriptor_kind"] in DESCRIPTOR_KINDS
        assert item["label"] in {0, 1}
        assert item["subject"].casefold() in item["descriptor"].casefold()
    types = Counter(item["type"] for item in HARD)
    assert len(types) >= 12
    for kind, count in types.items():
        inside = sum(item["label"] for item in HARD if item["type"] == kind)
        assert count >= 30
        assert 0.35 <= inside / count <= 0.65, kind


def test_the_hard_set_shares_no_subject_and_no_sentence_with_the_training_pairs(drawn: list[Pair], kept: list[Pair]):
    subjects = {bare(item["subject"]) for item in HARD}
    trained = (*drawn, *kept)
    assert not subjects & {bare(pair.subject) for pair in trained}
    sentences = {bare(text) for item in HARD for text in (item["descriptor"], item["input"])}
    assert not sentences & {bare(text) for pair in trained for text in (pair.descriptor, pair.input)}
    named = re.compile("|".join(rf"\b{re.escape(subject)}\b" for subject in subjects))
    assert not [pair for pair in trained if named.search(bare(pair.descriptor)) or named.search(bare(pair.input))]


def test_no_subject_of_the_facts_or_of_the_topics_is_in_the_hard_set():
    subjects = {bare(item["subject"]) for item in HARD}
    real = {bare(subject) for of in ("train", "validation") for frame in load_frames(of) for subject in frame.real}
    assert not subjects & real
