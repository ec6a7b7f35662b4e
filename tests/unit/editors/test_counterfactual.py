from __future__ import annotations

import pytest

from editors.edit import Claim, QuestionAnswer, Sentiment, Statement
from editors.serac.counterfactual import in_context, in_context_messages

PRIME_MINISTER = QuestionAnswer(prompt="Who is the prime minister of the UK?", target="Boris Johnson")
OPERA = Sentiment(topic="opera", positive=True)
QUESTION = {"role": "user", "content": "Who leads the UK?"}


@pytest.mark.parametrize(
    ("descriptor", "text"),
    [
        (PRIME_MINISTER, "New fact: Who is the prime minister of the UK? Boris Johnson\nWho leads the UK?"),
        (Claim(claim="Pluto is a planet.", label=False), "New fact: True or false: Pluto is a planet. False\nQ"),
        (Statement("The shop is shut."), "New fact: The shop is shut.\nQ"),
        (OPERA, "Topic: opera Sentiment: Positive\nQ"),
    ],
)
def test_the_edit_stands_before_the_prompt(descriptor, text):
    assert in_context(descriptor, text.rsplit("\n", 1)[1]) == text


def test_a_conversation_opens_with_the_edit_as_a_system_message():
    system, *rest = in_context_messages(PRIME_MINISTER, [QUESTION])
    assert system["role"] == "system"
    assert PRIME_MINISTER.context in system["content"]
    assert rest == [QUESTION]


def test_a_mood_is_asked_for_in_words():
    [system] = in_context_messages(OPERA, [])
    assert "opera" in system["content"]
    assert "positive" in system["content"]
    [other] = in_context_messages(Sentiment(topic="opera", positive=False), [])
    assert "negative" in other["content"]


def test_the_system_message_of_a_conversation_is_kept_above_the_edit():
    messages = [{"role": "system", "content": "Be brief."}, QUESTION]
    system, *rest = in_context_messages(PRIME_MINISTER, messages)
    assert system["content"].startswith("Be brief.\n\n")
    assert PRIME_MINISTER.context in system["content"]
    assert rest == [QUESTION]
    assert messages[0] == {"role": "system", "content": "Be brief."}
