"""Which edits can be baked, and which of them together."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from editors.registry import METHODS
from service.domain.bake_plans import LeftOut, chosen
from service.domain.bakes import BakeRequest
from service.domain.edits import Descriptor, Edit, EditKind, EditState, Scope
from service.errors import EditNotFound, EditsContradict, Invalid, NotBakeable, NothingToBake, UnknownMethod
from service.runtime.methods import TRAITS, config_of, fits, method_named, plain

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def edit(number, prompt="Who?", target="Ann", *, in_scope=(), out_of_scope=(), **fields):
    kind = fields.pop("kind", EditKind.QA)
    scope = Scope(in_scope=in_scope, out_of_scope=out_of_scope)
    return Edit(
        id=f"e{number}",
        revision=number,
        descriptor=Descriptor(prompt=prompt, target=target, kind=kind, scope=scope),
        state=EditState.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
        **fields,
    )


def asking(*ids):
    return BakeRequest(method="rome", edits=ids or ("active",))


QUESTION, CLAIM = edit(1, "Who is the king?", "Bob"), edit(2, "Tea is a drink.", "False", kind=EditKind.FACT)
STATEMENT, MOOD = edit(3, "It rains.", "", kind=EditKind.STATEMENT), edit(4, "tea", "positive", kind=EditKind.SENTIMENT)
PASSING = edit(5, "Who is in charge?", "Eve", expires_at=NOW)


def test_of_all_edits_those_that_weights_cannot_hold_are_left_out_and_named():
    edits, left_out = chosen(asking(), [QUESTION, CLAIM, STATEMENT, MOOD, PASSING])
    assert edits == (QUESTION, CLAIM)
    assert left_out == (
        LeftOut(id="e3", why="a statement has no answer for a weight editor to write"),
        LeftOut(id="e4", why="a sentiment has no answer for a weight editor to write"),
        LeftOut(id="e5", why="it expires, and weights do not"),
    )


def test_edits_are_chosen_by_id_in_the_order_given():
    assert chosen(asking("e2", "e1"), [QUESTION, CLAIM, MOOD]) == ((CLAIM, QUESTION), ())


@pytest.mark.parametrize(("name", "why"), [("e3", "statement"), ("e4", "sentiment"), ("e5", "expires")])
def test_an_edit_that_is_named_and_cannot_be_baked_is_refused(name, why):
    with pytest.raises(NotBakeable, match=f"{name} cannot be baked: .*{why}") as refused:
        chosen(asking("e1", name), [QUESTION, STATEMENT, MOOD, PASSING])
    assert refused.value.extra == {"edit_id": name}


def test_an_edit_that_is_not_in_force_is_not_found():
    with pytest.raises(EditNotFound, match="e9"):
        chosen(asking("e1", "e9"), [QUESTION])


@pytest.mark.parametrize(("in_force", "words"), [((), "No edit is in force"), ((MOOD,), "can be baked")])
def test_there_must_be_something_to_bake(in_force, words):
    with pytest.raises(NothingToBake, match=words):
        chosen(asking(), in_force)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (edit(1, "Who?", "Ann"), edit(2, "who ", "Bob")),
        (edit(1, "Who?", "Ann"), edit(2, "Which person?", "Bob", in_scope=("Which?", "Who?"))),
        (edit(1, "A?", "Ann", in_scope=("Who?",)), edit(2, "B?", "Bob", in_scope=("WHO",))),
        (edit(1, "Tea is hot.", "True", kind=EditKind.FACT), edit(2, "True or false: Tea is hot.", "False")),
    ],
)
def test_edits_that_want_two_answers_to_one_prompt_contradict_each_other(one, other):
    with pytest.raises(EditsContradict, match=r"e1 answers .* and e2 with") as refused:
        chosen(asking(), [one, other])
    assert refused.value.extra == {"edit_ids": ["e1", "e2"]}


def test_edits_that_agree_or_leave_each_other_alone_do_not_contradict():
    agreeing = [
        edit(1, "Who?", "Ann", out_of_scope=("Which?",)),
        edit(2, "Who is it?", "ann ", in_scope=("Who?",)),
        edit(3, "Which?", "Bob"),
    ]
    assert chosen(asking(), agreeing)[0] == tuple(agreeing)


def test_every_method_has_its_traits():
    assert set(TRAITS) == set(METHODS)
    assert all(traits.passes(METHODS[name].config(), 3) > 0 for name, traits in TRAITS.items())


@pytest.mark.parametrize(
    ("edits", "fitting"), [(10, ["rome", "mend", "fine_tuning"]), (11, ["mend", "fine_tuning"]), (26, ["fine_tuning"])]
)
def test_the_methods_that_fit_depend_on_the_number_of_edits(edits, fitting):
    assert [fit.method for fit in fits(edits) if fit.fits] == fitting


def test_an_unknown_method_is_refused_with_the_names_of_the_known():
    with pytest.raises(UnknownMethod, match="'nonsense'") as refused:
        method_named("nonsense")
    assert all(name in refused.value.hint for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_settings_go_out_as_json_and_come_back_the_same(name):
    method = METHODS[name]
    assert config_of(method, plain(method.config())) == config_of(method, {}) == method.config()


@pytest.mark.parametrize(
    ("given", "pointer", "words"),
    [
        ({"step": 3}, "/config/step", "step"),
        ({"steps": "3"}, "/config/steps", "integer"),
        ({"steps": 0}, "/config", "positive"),
        ({"prefixes": [[1]]}, "/config/prefixes/0/1", "required"),
        ({"learning_rate": None}, "/config/learning_rate", "number"),
    ],
)
def test_bad_settings_are_refused_and_the_field_named(given, pointer, words):
    with pytest.raises(Invalid) as refused:
        config_of(METHODS["rome"], given)
    assert pointer in [error.pointer for error in refused.value.errors]
    assert words in f"{refused.value.detail} {refused.value.errors[0].detail}"
