"""Where things are in a text: its subject, the subject's last token, and the tokens of a target after a prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from editors.errors import EmptyTarget, SubjectNotFound

_WORD = re.compile(r"[^\W_]+(?:['\u2019.&-]+[^\W_]+)*")
# fmt: off
_CONNECTIVES = frozenset((
    "a", "an", "and", "bin", "da", "de", "del", "der", "di", "do", "du", "el", "for", "in", "la", "le", "of", "on",
    "the", "to", "van", "von", "y",
))
"""Lower-case words that may stand inside a name: University of Oxford."""
_FUNCTION_WORDS = _CONNECTIVES | frozenset((
    "are", "as", "at", "be", "by", "can", "complete", "did", "does", "false", "from", "had", "has", "have", "he", "her",
    "his", "how", "is", "it", "its", "many", "me", "much", "my", "or", "our", "please", "she", "tell", "that", "their",
    "there", "these", "they", "this", "those", "true", "was", "we", "were", "what", "when", "where", "which", "who",
    "whom", "whose", "why", "will", "with", "would", "you", "your",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class Lookup:
    """A prompt and the place where ROME edits it.

    Attributes:
        ids: Its tokens, special tokens included.
        first: Index of the subject's first token among them.
        token: Index of the subject's last token.
    """

    ids: list[int]
    first: int
    token: int


def find_subject(prompt: str) -> str:
    """What a prompt is about, when nobody says: its longest name, or else its last run of content words.

    A name is a run of capitalised words, which may be joined by a few lower-case ones ("of", "the", "von"); a function
    word that opens the prompt ("Who", "The") is no name by itself and begins none. The longest is the one of most
    words; of equals, the last. A prompt without a name ("What is the atomic number of gold?") is about its last run
    of words that are not function words. This is a rule of thumb for English; give the subject where it is known.

    Raises:
        SubjectNotFound: The prompt has only function words, or no words.
    """
    words = list(_WORD.finditer(prompt))
    runs = _names(words) or _runs_of_content(words)[-1:]
    if not runs:
        raise SubjectNotFound(
            f"No subject can be found in the prompt {prompt!r}.", hint="Give it as the edit's subject."
        )
    start, end = max(runs, key=lambda run: (run[1] - run[0], run[0]))
    return prompt[words[start].start() : words[end - 1].end()]


def locate(tokenizer: PreTrainedTokenizerBase, text: str, subject: str) -> Lookup:
    """Encode a text and find its subject's first and last token, by character offsets.

    Where the text names the subject more than once, the last time counts: what was written before a prompt does not
    hide the prompt's own.

    Raises:
        SubjectNotFound: The text does not hold the subject.
    """
    start, end = _span(text, subject)
    encoded = tokenizer(text, return_offsets_mapping=True)
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    inside = [i for i, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
    if not inside:
        raise SubjectNotFound(f"The subject {subject!r} has no token in {text!r}.", hint="Give a subject with letters.")
    return Lookup(list(encoded["input_ids"]), inside[0], inside[-1])


def target_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> list[int]:
    """The tokens of a target as they would be written after a prompt, a space between them.

    Both are encoded in one piece where the tokenizer cuts it at the prompt's end, so that a target begins as a word
    within a text does, and never with the special tokens that begin a text.

    Raises:
        EmptyTarget: It has none.
    """
    text = target.strip() if not prompt or prompt[-1].isspace() else f" {target.strip()}"
    alone, together = _plain(tokenizer, prompt), _plain(tokenizer, prompt + text)
    ids = together[len(alone) :] if together[: len(alone)] == alone else _plain(tokenizer, text)
    if not target.strip() or not ids:
        raise EmptyTarget(
            f"The target {target!r} after {prompt!r} has no token.", hint="Give a target with text in it."
        )
    return ids


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _span(text: str, subject: str) -> tuple[int, int]:
    """Characters of the subject's last mention: as whole words where there is one, else wherever it stands."""
    wanted = subject.strip()
    whole = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(wanted)}(?!\w)", text)]
    start = whole[-1][0] if whole else text.rfind(wanted)
    if not wanted or start < 0:
        raise SubjectNotFound(
            f"The subject {subject!r} is not in the prompt {text!r}.",
            hint="Write it as the prompt does, letter by letter.",
        )
    return start, start + len(wanted)


def _names(words: list[re.Match[str]]) -> list[tuple[int, int]]:
    """Runs of words, as indices [start, end), that begin and end with a capital and have only connectives between."""
    capitals = [
        i for i, word in enumerate(words) if word[0][0].isupper() and (i > 0 or word[0].lower() not in _FUNCTION_WORDS)
    ]
    runs: list[tuple[int, int]] = []
    for i in capitals:
        joined = runs and all(word[0] in _CONNECTIVES for word in words[runs[-1][1] : i])
        runs[-1:] = [(runs[-1][0], i + 1)] if joined else [*runs[-1:], (i, i + 1)]
    return runs


def _runs_of_content(words: list[re.Match[str]]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for i, word in enumerate(words):
        if word[0].lower() in _FUNCTION_WORDS:
            continue
        if runs and runs[-1][1] == i:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs
