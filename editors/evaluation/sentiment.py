"""Edits of mood: ConvSent's edit success and drawdown (Mitchell et al. 2022, sec. 5.1, Eqs. 6 and 7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import exp, tanh

import torch
from torch import Tensor

from editors.edit import Sentiment
from editors.evaluation.cases import Case, Replies
from editors.evaluation.records import RepliesScored
from editors.evaluation.subject import Scored
from editors.evaluation.text import normalise

_WORDS = re.compile(r"\w+")


def is_of_mood(case: Case) -> bool:
    """Whether the edit is one of mood, to which no single answer is right."""
    return isinstance(case.edit, Sentiment) or case.replies is not None


def sentiment_success(replies: RepliesScored) -> float:
    """ES = z_sent * z_topic, in [0, 1] (Eq. 6): the wished mood, without ceasing to speak of the topic."""
    return z_sent(replies) * z_topic(replies)


def z_sent(replies: RepliesScored) -> float:
    """sigma(l+ - l-), with l the mean log-likelihood per token, after the edit, of wished and of opposite replies."""
    margin = log_likelihood(replies.wished_after) - log_likelihood(replies.opposite_after)
    return (1 + tanh(margin / 2)) / 2


def z_topic(replies: RepliesScored) -> float:
    """min(1, exp(l+_edited - l+_base)): whether wished replies are at least as likely as they were."""
    return exp(min(0.0, log_likelihood(replies.wished_after) - log_likelihood(replies.wished_before)))


def log_likelihood(replies: Sequence[Scored]) -> float:
    """Mean over all tokens of all replies, in nats, so that long replies count for more, as in the authors' code."""
    return sum(sum(reply.log_probabilities) for reply in replies) / sum(
        len(reply.log_probabilities) for reply in replies
    )


def divergence(base: Sequence[Tensor], edited: Sequence[Tensor]) -> float:
    """DD = KL(p_base || p_edited), the mean over all tokens of all replies, in nats (Eq. 7).

    Args:
        base: Log-probabilities under the base, for each reply [tokens, vocabulary].
        edited: The same under what is measured.

    Returns:
        0 where both are the same; infinite where the edit made impossible what the base could say.

    Raises:
        ValueError: The two differ in shape.
    """
    if [reply.shape for reply in base] != [reply.shape for reply in edited]:
        raise ValueError("base and edited must be distributions over the same replies and the same vocabulary")
    p, q = torch.cat(list(base)).double(), torch.cat(list(edited)).double()
    terms = torch.where(p.isneginf(), 0.0, p.exp() * (p - q))  # 0 log 0 = 0
    return float(terms.sum(dim=-1).mean())


def in_wished_mood(text: str, topic: str, replies: Replies) -> bool:
    """Whether a reply names the topic and is in more of its words like a wished reply than like any opposite one."""
    if f" {normalise(topic)} " not in f" {normalise(text)} ":
        return False
    wished, opposite = (max(_likeness(text, reply) for reply in side) for side in (replies.wished, replies.opposite))
    return wished > opposite


def _likeness(a: str, b: str) -> float:
    """Dice's coefficient of the words of two texts."""
    one, other = (set(_WORDS.findall(text.casefold())) for text in (a, b))
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 0.0
