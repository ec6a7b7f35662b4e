"""What is served, and how it changes: the rules alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest

from service.domain.edits import Descriptor, Edit, EditState
from service.domain.generations import GenerationRequest, Message
from service.domain.serving import Serving, activation, is_contained, outdated, rollback
from service.domain.versions import BakedEdit
from service.errors import NothingToRollBack, VersionActive

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 31, tzinfo=UTC)


class Log:
    """Every state there was, by its revision."""

    def __init__(self):
        self.states = [Serving()]

    async def now(self):
        return self.states[-1]

    async def at(self, revision):
        return self.states[revision]

    def make(self, move):
        if move is not None:
            self.states.append(replace(move.to, revision=len(self.states)))


def edit(number=1, revision=1, state=EditState.ACTIVE):
    descriptor = Descriptor(prompt="x", target="y")
    return Edit(id=f"e{number}", revision=revision, descriptor=descriptor, state=state, created_at=NOW, updated_at=NOW)


async def test_rolling_back_retraces_the_activations_whatever_canaries_there_were():
    rng = Random(0)
    for _ in range(200):
        log, stack = Log(), ["v0"]
        for _ in range(12):
            now = await log.now()
            version, percent = f"v{rng.randrange(4)}", rng.choice([1, 50, 99, 100])
            if rng.random() < 0.4:
                if now.canary is None and len(stack) == 1:
                    with pytest.raises(NothingToRollBack):
                        await rollback(log)
                    continue
                if now.canary is None:
                    stack.pop()
                log.make(await rollback(log))
            elif percent < 100 and version == now.active:
                with pytest.raises(VersionActive):
                    activation(now, version, percent)
                continue
            else:
                log.make(activation(now, version, percent))
                if percent == 100 and version != now.active:
                    stack.append(version)
            assert (await log.now()).active == stack[-1]


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_canarys_share_is_about_its_percent_and_a_larger_one_keeps_everyone(percent):
    serving = Serving(active="v1", canary="v2", percent=percent)
    keys = [f"session {number}" for number in range(5000)]
    chosen = {key for key in keys if serving.version_for(key) == "v2"}
    assert abs(len(chosen) / len(keys) - percent / 100) < 0.025
    wider = replace(serving, percent=min(99, percent + 20))
    assert all(wider.version_for(key) == "v2" for key in chosen)
    assert serving.share("v1") + serving.share("v2") == 100
    assert serving.share("v0") == 0


def test_another_canary_is_tried_on_others():
    keys = [f"session {number}" for number in range(1000)]
    one, other = (
        {key for key in keys if Serving(canary=canary, percent=10).version_for(key) == canary}
        for canary in ("v1", "v2")
    )
    assert len(one & other) < 0.5 * len(one)


def test_a_session_decides_and_without_one_the_question():
    plain = GenerationRequest(prompt="Who?")
    assert plain.key == GenerationRequest(prompt="Who?", version="v1").key
    assert plain.key != GenerationRequest(prompt="Why?").key
    assert plain.key != GenerationRequest(messages=(Message("user", "Who?"),)).key
    sessions = [GenerationRequest(prompt=prompt, session="ann").key for prompt in ("Who?", "Why?")]
    assert sessions[0] == sessions[1] != plain.key
    assert GenerationRequest(prompt="x", session="Who?").key != plain.key


@pytest.mark.parametrize(
    ("revision", "number", "inside"), [(1, 1, True), (2, 1, False), (1, 2, False)], ids=["baked", "changed", "other"]
)
def test_an_edit_is_in_a_version_as_it_was_baked_and_not_otherwise(revision, number, inside):
    assert is_contained(edit(number, revision), frozenset({BakedEdit(id="e1", revision=1)})) == inside


def test_what_became_of_a_versions_edits_is_told():
    baked = [BakedEdit(id=f"e{number}", revision=number) for number in range(1, 5)]
    now = [edit(1, 1), edit(2, 9, EditState.RETRACTED), edit(3, 3, EditState.EXPIRED), edit(4, 8)]
    assert [(one.id, one.why) for one in outdated(baked, now)] == [
        ("e2", "retracted"),
        ("e3", "expired"),
        ("e4", "changed"),
    ]
