import pytest

from editors.edit import Claim, QuestionAnswer, Sentiment, Statement
from editors.evaluation.cases import Case, InScope, OutOfScope, Replies
from editors.evaluation.counterfact import new_answer
from editors.evaluation.metrics import METRICS

MOOD = Case(
    id="mood",
    edit=Sentiment("vaccines", positive=True),
    in_scope=(InScope("What about vaccines?", "They are good."),),
    out_of_scope=(OutOfScope("What about tea?"),),
    replies=Replies(("Good.",), ("Bad.",)),
)
FACT = Case(
    id="fact",
    edit=QuestionAnswer("Who leads the UK?", "Boris"),
    in_scope=(
        InScope("Who leads the UK?", "Boris", "edit"),
        InScope("The UK's leader?", "Boris"),
        InScope("Who is married to the UK's leader?", "Carrie", "composed"),
    ),
    out_of_scope=(OutOfScope("Who led the Home Office?", "neighbour", "Theresa"),),
    previous="Theresa",
)


def lacking(name, *cases):
    return METRICS[name].lacking(cases)


@pytest.mark.parametrize("name", METRICS)
def test_full_cases_lack_nothing(name):
    assert lacking(name, FACT, MOOD) is None


@pytest.mark.parametrize("name", METRICS)
def test_a_bare_case_lacks_something_for_every_metric(name):
    sentence = lacking(name, Case(id="bare"))
    assert sentence.startswith("No case ")
    assert sentence.endswith(".")
    assert lacking(name) == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("edit_success", "No case has an in-scope probe with a right answer (edits of mood have none)."),
        ("portability", "No case has an in-scope probe of form `composed` or `entailed`."),
        ("efficacy", "No case has an in-scope probe of form `edit`."),
        ("paraphrase", "No case gives `previous`, the answer before the edit."),
        ("neighbourhood", "No case has an out-of-scope probe of form `neighbour`, of which `previous` is true."),
        ("rome_score", "No case has an in-scope probe of form `edit`."),
    ],
)
def test_what_is_lacking_is_said(name, sentence):
    assert lacking(name, MOOD) == sentence


def test_a_metric_of_mood_lacks_replies_where_there_are_facts_only():
    assert lacking("sentiment_success", FACT) == "No case gives `replies`, of the wished and of the opposite mood."


def test_fields_that_no_single_case_brings_together_are_named_together():
    asked = Case(id="asked", in_scope=(InScope("Who?", "Boris", "edit"),))
    told = Case(id="told", previous="Theresa")
    assert lacking("efficacy", asked, told) == (
        "No case has an in-scope probe of form `edit` and also gives `previous`, the answer before the edit."
    )


def test_the_three_parts_of_rome_s_score_may_come_from_three_cases():
    edit = Case(id="1", in_scope=(InScope("Who?", "Boris", "edit"),), previous="Theresa")
    paraphrase = Case(id="2", in_scope=(InScope("Who?", "Boris"),), previous="Theresa")
    neighbour = Case(
        id="3",
        edit=QuestionAnswer("Who?", "Boris"),
        out_of_scope=(OutOfScope("Who else?", "neighbour"),),
        previous="Theresa",
    )
    assert lacking("rome_score", edit, paraphrase, neighbour) is None
    for missing in (edit, paraphrase, neighbour):
        rest = [case for case in (edit, paraphrase, neighbour) if case is not missing]
        assert lacking("rome_score", *rest) is not None


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        (FACT, "Boris"),
        (Case(id="claim", edit=Claim("Boris leads the UK.", label=True)), "True"),
        (Case(id="held", in_scope=(InScope("Who?", "No"), InScope("Who?", "Boris", "edit"))), "Boris"),
        (Case(id="stated", edit=Statement("Boris leads."), in_scope=(InScope("Who?", "Boris"),)), None),
    ],
)
def test_the_new_answer_of_an_edit(case, answer):
    assert new_answer(case) == answer


def test_the_fields_that_a_metric_needs():
    assert METRICS["edit_success"].needs == ("in_scope",)
    assert METRICS["neighbourhood"].needs == ("out_of_scope", "edit", "previous")
    assert set(METRICS["rome_score"].needs) == {"in_scope", "out_of_scope", "edit", "previous"}
