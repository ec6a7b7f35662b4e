"""Whether two texts are the same answer."""

from __future__ import annotations

from string import punctuation
from unicodedata import category, normalize

_ARTICLES = frozenset({"a", "an", "the"})


def normalise(text: str) -> str:
    """The text without what does not count: case, punctuation, English articles, and the kind and amount of space.

    The normalisation of SQuAD's evaluation (Rajpurkar et al. 2016), for all of Unicode: compatibility forms are made
    one (NFKC), case is folded, and punctuation is Unicode's together with ASCII's symbols, as there. Accents count.
    Unlike there, nothing is normalised away altogether: `A` (a blood type) and `+` keep their one sign.
    """
    folded = _folded(text)
    words = (_without_punctuation(folded) or folded).split()
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def exact_match(answer: str, target: str) -> bool:
    """Whether both are the same once normalised (SQuAD's exact match)."""
    return normalise(answer) == normalise(target)


def answers(text: str, target: str) -> bool:
    """Whether a generated text gives the target as its answer.

    A model that was not trained to stop goes on talking after its answer, so whole texts cannot be compared. The field
    cuts at the end of the first line (lm-evaluation-harness) or accepts a text that begins with the target (HELM's
    `quasi_prefix_exact_match`: "Yes, Elmendorf" answers "Yes"). So do we, more strictly: the first line that is not
    empty must be the target, or begin with its words, whole and in order, where what follows

    - does not lengthen the name: "New York City" is not "New York", nor "World War 2" "World War"; a capital or a digit
      may follow only a punctuation mark, so "Paris. The capital" and "Paris, France" are "Paris";
    - does not offer another answer: "Paris or London" is not "Paris".

    A target further on does not count, since what leads to it may deny it: "Yes, not Paris" is not "Paris", and neither
    is "The capital is Paris". What follows is otherwise not understood: "10 million" is taken for "10", and in a script
    without spaces only the whole line can match.
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    if exact_match(line, target):
        return True
    words, goal = line.split(), normalise(target).split()
    spoken = [(place, bare) for place, word in enumerate(words) if (bare := _bare(word)) and bare not in _ARTICLES]
    head = spoken[: len(goal)]
    if not goal or [bare for _, bare in head] != goal:
        return False
    last = head[-1][0]
    return _is_over(words[last], words[last + 1 :])


def _is_over(word: str, rest: list[str]) -> bool:
    """Whether an answer that ends with `word` is not continued by the words after it."""
    if not rest:
        return True
    if _bare(rest[0]) == "or":
        return False
    return not word[-1].isalnum() or not (rest[0][0].isupper() or rest[0][0].isdigit())


def _bare(word: str) -> str:
    return _without_punctuation(_folded(word))


def _folded(text: str) -> str:
    return normalize("NFKC", normalize("NFKC", text).casefold())  # folding case can undo the normal form


def _without_punctuation(text: str) -> str:
    kept = "".join(character for character in text if not _is_punctuation(character))
    return kept if kept.strip() else ""


def _is_punctuation(character: str) -> bool:
    return character in punctuation or category(character).startswith("P")
