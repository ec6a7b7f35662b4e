import re
import string

import pytest

from editors.evaluation.text import answers, exact_match, normalise


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Prime Minister,\tof the UK.", "prime minister of uk"),
        ("“L\u2019Été”", "lété"),
        ("L'E\u0301te\u0301", "lété"),  # combining accents are the same letters
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("\uff30\uff21\uff32\uff29\uff33\u3000\uff11\uff19", "paris 19"),  # full-width forms
        ("¿Qué?", "qué"),
        ("巴黎。", "巴黎"),
        ("ΟΔΟΣ", "οδοσ"),
        ("a b-c", "bc"),
        ("theory", "theory"),
        ("A", "a"),
        ("The", "the"),
        ("+", "+"),
        ("", ""),
    ],
)
def test_normalising_leaves_what_counts(text, normal):
    assert normalise(text) == normal


def test_normalising_is_done_once():
    for text in ("The Ångström", "“A” the", "ﬁancé", "ẞ", "½ cup", "…"):
        assert normalise(normalise(text)) == normalise(text)


def test_plain_english_is_normalised_as_squad_does():
    def squad(text):
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())

    for text in (
        "An  apple a day",
        "The U.S.A.!",
        "it's the end-of-line",
        "$1,000.50",
        "banana; athens",
        "to the a team",
    ):
        assert normalise(text) == squad(text)


def test_accents_and_words_count():
    assert not exact_match("résumé", "resume")
    assert not exact_match("Paris France", "Paris")
    assert not exact_match("A", "The")
    assert not exact_match("", "A")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Paris", "Paris"),
        ("paris.", "Paris"),
        ("\n  Paris\nLondon", "Paris"),
        ("Paris, France", "Paris"),
        ("Paris. The capital of France is", "Paris"),
        ("Paris (in France)", "Paris"),
        ("Paris is the capital of France", "Paris"),
        ("The piano and sings", "piano"),
        ("the United Kingdom, of course", "United Kingdom"),
        ("Yes, not Paris", "Yes"),
        ("Is it Paris? Yes", "Is it Paris?"),
        ("Elección, dijo", "elección"),
        ("巴黎。\n伦敦", "巴黎"),
        ("A", "A"),
    ],
)
def test_a_text_answers_with_its_first_words(text, target):
    assert answers(text, target)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("yes, not Paris", "Paris"),
        ("not Paris", "Paris"),
        ("The capital is Paris", "Paris"),
        ("London\nParis", "Paris"),
        ("Parisian", "Paris"),
        ("Paris-based", "Paris"),
        ("Paris or London", "Paris"),
        ("Paris, or London", "Paris"),
        ("True or false", "True"),
        ("New York City", "New York"),
        ("World War 2", "World War"),
        ("Paris Paris Paris", "Paris"),
        ("New", "New York"),
        ("10,000", "10"),
        ("", "Paris"),
        ("\n \n", "Paris"),
        ("Paris", ""),
        ("...", "Paris"),
        ("The", "A"),
        ("巴黎是法国的首都", "巴黎"),
    ],
)
def test_other_texts_do_not_answer(text, target):
    assert not answers(text, target)
