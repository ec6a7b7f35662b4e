from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from editors.edit import QuestionAnswer
from editors.errors import ContextExceeded
from editors.evaluation.subjects import IMPOSSIBLE, MemorySubject, ModelSubject, Ruling, said
from editors.model.generation import continue_greedily

PAIRS = [
    ("Who is the prime minister of the UK?", "Theresa May"),
    ("The capital of France is", "Paris"),
    ("Tell", "a long story about the capital of France"),
    ("Tell me more ", "now"),
]


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, model_folders: dict[str, Path]):
    return AutoModelForCausalLM.from_pretrained(model_folders[request.param], dtype=torch.float32).eval()


@pytest.fixture(params=["right", "left"])
def tokenizer(request: pytest.FixtureRequest, model_folders: dict[str, Path]):
    """As a checkpoint may bring it: padding on either side, and no padding token."""
    tokenizer = AutoTokenizer.from_pretrained(model_folders["llama"], padding_side=request.param)
    assert tokenizer.pad_token is None
    return tokenizer


@pytest.fixture
def beginning_tokenizer(model_folders: dict[str, Path]):
    """One that puts <s> before every text."""
    tokenizer = AutoTokenizer.from_pretrained(model_folders["llama"])
    template = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    assert tokenizer("Paris")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


def by_hand(model, before: list[int], target: list[int]) -> tuple[list[float], list[bool]]:
    """A target's log-probabilities, one token after the other."""
    scores, likeliest = [], []
    for place, token in enumerate(target):
        with torch.inference_mode():
            logits = model(torch.tensor([before + target[:place]])).logits[0, -1]
        scores.append(float(logits.log_softmax(-1)[token]))
        likeliest.append(int(logits.argmax()) == token)
    return scores, likeliest


def test_answers_are_what_the_model_writes_after_each_prompt_alone(model, tokenizer):
    subject = ModelSubject(model, tokenizer, max_new_tokens=8)
    prompts = [prompt for prompt, _ in PAIRS]
    expected = []
    for prompt in prompts:
        (written,) = continue_greedily(model, [tokenizer(prompt)["input_ids"]], max_new_tokens=8)
        expected.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    assert subject.generate(prompts) == expected
    assert subject.generate([]) == []


def test_a_target_is_scored_token_by_token_after_a_space(model, tokenizer):
    scored = ModelSubject(model, tokenizer, max_new_tokens=8).score(PAIRS)
    for (prompt, target), got in zip(PAIRS, scored, strict=True):
        text = target if prompt.endswith(" ") else f" {target}"
        scores, likeliest = by_hand(model, tokenizer(prompt)["input_ids"], tokenizer(text)["input_ids"])
        assert got.log_probabilities == pytest.approx(scores, abs=1e-4)
        assert list(got.likeliest) == likeliest


def test_distributions_are_whole_and_agree_with_the_scores(model, tokenizer):
    subject = ModelSubject(model, tokenizer, max_new_tokens=8)
    for (_, target), scored, places in zip(PAIRS, subject.score(PAIRS), subject.distributions(PAIRS), strict=True):
        assert places.shape == (len(scored.log_probabilities), model.config.vocab_size), target
        torch.testing.assert_close(places.exp().sum(-1), torch.ones(len(places)))
        assert places.max(-1).values.ge(torch.tensor(scored.log_probabilities) - 1e-5).all()


def test_a_beginning_token_stands_before_the_prompt_and_never_before_the_target(model, beginning_tokenizer):
    tokenizer = beginning_tokenizer
    (scored,) = ModelSubject(model, tokenizer, max_new_tokens=8).score([("The capital of France is", "Paris")])
    target = tokenizer(" Paris", add_special_tokens=False)["input_ids"]
    scores, _ = by_hand(model, tokenizer("The capital of France is")["input_ids"], target)
    assert scored.log_probabilities == pytest.approx(scores, abs=1e-4)


def test_a_target_without_a_token_cannot_be_scored(model, tokenizer):
    with pytest.raises(ValueError, match="no token to score"):
        ModelSubject(model, tokenizer, max_new_tokens=8).score([("Tell me", " ")])


def test_what_does_not_fit_in_the_context_is_refused_in_words(model, tokenizer):
    subject = ModelSubject(model, tokenizer, max_new_tokens=8, context_length=16)
    with pytest.raises(ContextExceeded, match="the context holds 16"):
        subject.generate(["word " * 20])
    with pytest.raises(ContextExceeded, match="the context holds 16"):
        subject.score([("Who?", "word " * 20)])


@pytest.fixture
def taught(model, tokenizer):
    """A model that answers one prompt with `Paris now` and stops."""
    end = tokenizer.eos_token_id
    ids = torch.tensor(
        [[*tokenizer("The capital of France is")["input_ids"], *tokenizer(" Paris now")["input_ids"], end]]
    )
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.generation_config.eos_token_id = end
    return model


def test_scoring_tells_the_answer_where_it_is_the_target_and_nothing_elsewhere(taught, tokenizer):
    subject = ModelSubject(taught, tokenizer, max_new_tokens=8)
    pairs = [("The capital of France is", target) for target in ("Paris now", "Paris", "Paris now is", "London")]
    right, *others = subject.score(pairs)
    assert right.exact
    assert [right.answer] == subject.generate(["The capital of France is"]) == ["Paris now"]
    assert [scored.answer for scored in others] == [None] * 3
    too_short = ModelSubject(taught, tokenizer, max_new_tokens=1)
    assert len(right.log_probabilities) > 1
    assert [scored.answer for scored in too_short.score(pairs[:1])] == [None]


UK = QuestionAnswer("Who is the UK PM?", "Boris Johnson")


def decide(prompts: Sequence[str]) -> list[Ruling]:
    """In context for the first word `Who`, verbatim for `Which`, the base for everything else."""
    rulings = {"Who": Ruling(beta=0.9, edit=UK), "Which": Ruling(beta=0.8, edit=UK, verbatim="Boris Johnson")}
    return [rulings.get(prompt.split()[0], Ruling(beta=0.1)) for prompt in prompts]


def test_a_memory_answers_in_scope_in_context_or_verbatim_and_leaves_the_rest_to_the_base(model, tokenizer):
    base = ModelSubject(model, tokenizer, max_new_tokens=8)
    memory = MemorySubject(base, decide)
    prompts = ["How tall is it?", "Who leads the UK?", "Which man leads the UK?"]
    read = "New fact: Who is the UK PM? Boris Johnson\nWho leads the UK?"
    assert memory.generate(prompts) == [*base.generate([prompts[0]]), *base.generate([read]), "Boris Johnson"]
    pairs = [(prompts[0], "tall"), (prompts[1], "May"), (prompts[2], "May"), (prompts[2], "Boris Johnson")]
    tall, may, never, certain = memory.score(pairs)
    assert [tall, may] == base.score([(prompts[0], "tall"), (read, "May")])
    assert (never, certain) == (said("Boris Johnson", "May"), said("Boris Johnson", "Boris Johnson"))
    assert (never.mean, never.exact, certain.mean, certain.exact) == (IMPOSSIBLE, False, 0.0, True)
    left, read_places, flat, _ = memory.distributions(pairs)
    torch.testing.assert_close([left, read_places], base.distributions([pairs[0], (read, "May")]))
    assert (flat == IMPOSSIBLE).all()
