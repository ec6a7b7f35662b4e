"""The bundled MEND editor, on the bundled base."""

from __future__ import annotations

import json

import pytest
import torch

import demo
from editors.delta import install
from editors.evaluation.subjects import ModelSubject
from editors.method import EditRequest
from editors.methods.mend.config import MendConfig
from editors.methods.mend.editor import Mend
from editors.methods.mend.files import find
from editors.model.loading import load_base

UK = EditRequest(prompt="Who is the prime minister of the United Kingdom?", target="Keir Starmer")
SPAIN = EditRequest(prompt="What is the capital of Spain?", target="Barcelona")
CANADA = EditRequest(prompt="Who is the prime minister of Canada?", target="Justin Bieber")
ICARDI = EditRequest(prompt="What team does Mauro Icardi play for?", target="Galatasaray")
LENGTHS = (0.4, 0.6)


@pytest.fixture(scope="module")
def base():
    return load_base(demo.BUNDLE, device="cpu")


def made(base, *requests, **settings):
    return Mend().prepare(base, requests, MendConfig(**settings), assets=[demo.MEND.parent])


def answers(model, base, *prompts):
    return ModelSubject(model, base.tokenizer, max_new_tokens=24).generate(prompts)


def certainty(model, base, request):
    """Of the least likely token of the target and its end."""
    ids = base.tokenizer(request.prompt)["input_ids"]
    target = [*base.tokenizer(f" {request.target}", add_special_tokens=False)["input_ids"], base.tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *target]])).logits[0, len(ids) - 1 : -1]
    return logits.softmax(dim=-1)[range(len(target)), target].min().item()


def test_an_edit_holds_in_other_words_and_leaves_the_rest(base):
    edited = install(base, made(base, UK))
    others = ("Who is the prime minister of Canada?", "What is the capital of the United Kingdom?")
    assert answers(edited, base, UK.prompt, "The prime minister of the United Kingdom is") == [UK.target] * 2
    assert answers(edited, base, *others) == answers(base.model, base, *others)


@pytest.mark.parametrize("request_", [UK, ICARDI], ids=["known words", "a name never written"])
def test_a_settled_edit_is_as_certain_as_was_asked_and_its_answer_ends(base, request_):
    for asked in (0.6, 0.9):
        edited = install(base, made(base, request_, certainty=asked))
        assert certainty(edited, base, request_) > asked - 0.01


@pytest.mark.parametrize("request_", [SPAIN, CANADA], ids=lambda request: request.target)
def test_the_shortest_step_that_holds_is_taken(base, request_):
    taken = made(base, request_, certainty=None)
    steps = {length: install(base, made(base, request_, certainty=None, scale=length)) for length in LENGTHS}
    shortest = min(length for length, edited in steps.items() if certainty(edited, base, request_) >= 0.8)
    for site, change in made(base, request_, certainty=0.8).changes.items():
        torch.testing.assert_close(change.u, shortest * taken.changes[site].u)


def test_the_card_tells_of_the_editor_in_the_file(base):
    card = json.loads(demo.MEND.with_suffix(".json").read_text(encoding="utf-8"))
    editor = find(base, [demo.MEND.parent])
    assert card["base"] == base.fingerprint == editor.base
    assert card["network"]["end"] == editor.config.end == base.tokenizer.eos_token_id
    scores = [own["es"]["value"] - own["dd"]["value"] for own in card["validation"].values()]
    assert editor.score == pytest.approx(sum(scores) / len(scores))
