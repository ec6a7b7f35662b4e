from __future__ import annotations

import pytest
from transformers import AutoTokenizer

import demo
from editors.errors import EmptyTarget, SubjectNotFound
from editors.surgery.tokens import find_subject, locate, target_ids
from tests.tiny_models import tiny_tokenizer


@pytest.fixture(scope="module", params=["atlas-2018", "tiny"])
def tokenizer(request):
    return tiny_tokenizer() if request.param == "tiny" else AutoTokenizer.from_pretrained(demo.BUNDLE)


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Who is the prime minister of the UK?", "UK"),
        ("The capital of France is", "France"),
        ("The mother tongue of Danielle Darrieux is", "Danielle Darrieux"),
        ("Who wrote The Lord of the Rings?", "The Lord of the Rings"),
        ("Where is the University of Oxford?", "University of Oxford"),
        ("Who plays for Paris Saint-Germain?", "Paris Saint-Germain"),
        ("What is the atomic number of gold?", "gold"),
        ("What class of animal is the polar bear?", "polar bear"),
        ("Who coaches Real Madrid in Spain?", "Real Madrid in Spain"),
        ("France is a country whose capital is", "France"),
        ("Is O'Brien older than Jean-Luc?", "Jean-Luc"),
        ("Où est Orléans?", "Orléans"),
    ],
)
def test_a_subject_is_found_in_its_prompt(prompt, subject):
    assert find_subject(prompt) == subject


@pytest.mark.parametrize("prompt", ["", "What is it?", "?!"])
def test_a_prompt_about_nothing_has_no_subject(prompt):
    with pytest.raises(SubjectNotFound) as caught:
        find_subject(prompt)
    assert "subject" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "subject", "upto"),
    [
        ("The capital of France is", "France", "The capital of France"),
        ("Who is the prime minister of the UK?", "the UK", "Who is the prime minister of the UK"),
        ("France. The capital of France is", "France", "France. The capital of France"),
        ("Is a USB made in the US of A?", "US", "Is a USB made in the US"),
        ("Where is Orléans?", "Orléans", "Where is Orléans"),
        ("France's capital is", "France", "France"),
        ("Paris", "Paris", "Paris"),
    ],
)
def test_the_last_token_of_a_subject_ends_where_the_subject_does(tokenizer, text, subject, upto):
    lookup = locate(tokenizer, text, subject)
    assert lookup.ids == tokenizer(text)["input_ids"]
    assert tokenizer.decode(lookup.ids[: lookup.token + 1], skip_special_tokens=True) == upto


def test_in_a_script_without_spaces_a_subject_is_found_within_a_word(tokenizer):
    lookup = locate(tokenizer, "法国的首都是", "法国")
    assert tokenizer.decode(lookup.ids[: lookup.token + 1], skip_special_tokens=True) == "法国"


@pytest.mark.parametrize("subject", ["Spain", "france", " ", ""])
def test_a_subject_that_the_text_lacks_is_refused(tokenizer, subject):
    with pytest.raises(SubjectNotFound, match="The capital of France is"):
        locate(tokenizer, "The capital of France is", subject)


@pytest.mark.parametrize(("prompt", "text"), [("Paris is", " Lyon"), ("Paris is ", "Lyon"), ("", "Lyon")])
@pytest.mark.parametrize("target", ["Lyon", " Lyon ", "Lyon\n"])
def test_a_target_is_encoded_as_it_is_written_after_its_prompt(tokenizer, prompt, text, target):
    assert tokenizer.decode(target_ids(tokenizer, prompt, target)) == text


@pytest.mark.parametrize("target", ["", " ", "\n"])
def test_a_target_without_a_token_is_refused(tokenizer, target):
    with pytest.raises(EmptyTarget, match="The sky is"):
        target_ids(tokenizer, "The sky is", target)
