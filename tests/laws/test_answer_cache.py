"""The laws of the answer cache: with it and without, the same answers; whatever changes an answer does so at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from editors.delta import Delta, Dense
from editors.delta_files import save
from editors.model.loading import BaseModel
from service.actions.checkpoints import activate, roll_back
from service.actions.edits import change, retract
from service.actions.previews import preview
from service.actions.services import Services
from service.domain.edits import AnswerMode, Descriptor, Edit, NewEdit
from service.domain.generations import Generation, GenerationRequest, Message, Sampling, Source
from service.domain.ports import Backlog
from service.runtime.runtime import ModelRuntime
from service.store.answers import LocalAnswers, TieredAnswers
from service.store.artifacts import ArtifactStore
from service.store.store import PostgresStore
from tests.bakes import version_in
from tests.conftest import TEMPLATE
from tests.databases import Server
from tests.runtimes import StartRuntime, post

pytestmark = pytest.mark.anyio

UK = Descriptor(prompt="Who is the UK PM?", target="Boris Johnson")
SKY = Descriptor(prompt="What colour is the sky?", target="green", answer=AnswerMode.VERBATIM)
PROMPTS = ("Who is the UK PM?", "What colour is the sky?", "How tall is a giraffe?", "Who wrote Hamlet?", "")
GREEDY = Sampling(max_new_tokens=8)
REPEATABLE = (
    GREEDY,
    Sampling(max_new_tokens=3),
    Sampling(max_new_tokens=8, stop=("e",)),
    Sampling(max_new_tokens=8, temperature=1.0, seed=7),
    Sampling(max_new_tokens=8, temperature=1.0, seed=8),
    Sampling(max_new_tokens=8, temperature=2.0, seed=7),
    Sampling(max_new_tokens=8, temperature=1.0, top_p=0.3, seed=7),
)


@pytest.fixture
def local() -> LocalAnswers:
    return LocalAnswers(most_bytes=1 << 20, seconds=3600)


@pytest.fixture
def cache(local: LocalAnswers) -> TieredAnswers:
    return TieredAnswers([local])


async def ask(runtime: ModelRuntime, prompt: str, sampling: Sampling = GREEDY, **request: object) -> Generation:
    return await runtime.generate(GenerationRequest(prompt=prompt, sampling=sampling, **request))


async def ask_all(runtime: ModelRuntime) -> list[Generation]:
    return [await ask(runtime, prompt, sampling) for sampling in REPEATABLE for prompt in PROMPTS if prompt]


async def test_with_the_cache_and_without_every_answer_is_the_same_to_the_byte(
    store, start_runtime: StartRuntime, cache: TieredAnswers, local: LocalAnswers
):
    plain, cached = await start_runtime(store), await start_runtime(store, cache=cache)
    for edit in (None, UK, SKY):
        if edit is not None:
            await post(store, plain, edit)
            await cached.catch_up()
        wanted = await ask_all(plain)
        assert [await ask_all(cached), await ask_all(cached)] == [wanted, wanted]
    assert local.asked.hits > local.asked.misses > 0


async def test_an_answer_that_is_another_each_time_is_never_kept(
    store, start_runtime: StartRuntime, cache: TieredAnswers, local: LocalAnswers
):
    runtime = await start_runtime(store, cache=cache)
    drawn = [await ask(runtime, "Tell me", Sampling(max_new_tokens=16, temperature=2.0)) for _ in range(4)]
    assert len({one.text for one in drawn}) == 4
    assert (local.asked.hits, local.asked.misses) == (0, 0)


async def test_an_edit_answers_at_once_and_leaves_every_base_answer_where_it_is(
    store, start_runtime: StartRuntime, cache: TieredAnswers, local: LocalAnswers
):
    runtime = await start_runtime(store, cache=cache)
    before = [await ask(runtime, prompt) for prompt in PROMPTS if prompt]
    edit = await post(store, runtime, UK)
    assert (await ask(runtime, UK.prompt)).edit_id == edit.id
    misses = local.asked.misses
    after = [await ask(runtime, prompt) for prompt in PROMPTS[1:] if prompt]
    off = await ask(runtime, UK.prompt, edits=False)
    assert [one.text for one in (off, *after)] == [one.text for one in before]
    assert local.asked.misses == misses


async def test_changing_and_retracting_an_edit_changes_the_answer_at_once(
    store, start_runtime: StartRuntime, cache: TieredAnswers
):
    plain, cached = await start_runtime(store), await start_runtime(store, cache=cache)
    services = Services(store, cached, None, None)  # type: ignore[arg-type]
    before = await ask(cached, UK.prompt)
    edit = await post(store, cached, UK)

    async def seen() -> Generation:
        await plain.catch_up()
        first, second, wanted = [await ask(one, UK.prompt) for one in (cached, cached, plain)]
        assert first == second == wanted
        return first

    texts = [(await seen()).text]
    for target in ("7", "the giraffe, as everybody in the zoo knows", "Boris Johnson"):
        amend = partial(replace, descriptor=replace(UK, target=target))
        await change(services, edit.id, amend, revisions=None, reason=None, actor="tester")
        texts.append((await seen()).text)
    assert len(set(texts)) > 1 and texts[0] == texts[-1]
    await retract(services, edit.id, reason=None, revisions=None, actor="tester")
    assert (await seen()).text == before.text


async def test_previews_of_one_question_are_not_taken_for_each_other(
    store, start_runtime: StartRuntime, cache: TieredAnswers
):
    runtime = await start_runtime(store, cache=cache)
    services = Services(store, runtime, None, None)  # type: ignore[arg-type]
    shown = []
    for target in ("7", "the giraffe, as everybody in the zoo knows", "7"):
        new = NewEdit(descriptor=replace(UK, target=target))
        shown.append((await preview(services, new, (UK.prompt,), GREEDY)).probes[0].after)
    assert shown[0] == shown[2] != shown[1]


async def changed_version(store, artifacts: ArtifactStore, base: BaseModel, edit: Edit, seed: int, file: Path) -> str:
    """A version whose weights are somewhat different."""
    site = "model.layers.1.mlp.down_proj.weight"
    weight = base.model.get_parameter(site)
    change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.5
    save(Delta(base=base.fingerprint, changes={site: Dense(change)}), file)
    content = file.read_bytes()  # noqa: ASYNC240 - a small file
    version = await version_in(store, artifacts, file, edit=edit, base=base, content=content)
    return version.id


async def test_every_version_has_its_own_answers_and_a_rollback_brings_back_the_ones_before(
    store, start_runtime: StartRuntime, artifacts, lively_base: BaseModel, cache: TieredAnswers, tmp_path: Path
):
    plain = await start_runtime(store, base=lively_base)
    cached = await start_runtime(store, base=lively_base, cache=cache)
    services = Services(store, cached, None, artifacts)  # type: ignore[arg-type]
    edit = await post(store, cached, SKY)
    seen = []

    async def look() -> None:
        await plain.catch_up()
        answers = [await ask_all(one) for one in (cached, cached, plain)]
        assert answers[0] == answers[1] == answers[2]
        seen.append([one.text for one in answers[0]])

    await look()
    for seed in (1, 2):
        version = await changed_version(store, artifacts, lively_base, edit, seed, tmp_path / "delta")
        await activate(services, version, percent=100, reason=None, actor="tester")
        await look()
    for _ in range(2):
        await roll_back(services, reason=None, actor="tester")
        await look()
    assert seen[0] == seen[4] != seen[1] == seen[3] != seen[2] != seen[0]


async def test_names_that_mean_something_else_in_another_database_are_not_confused(
    store, postgres: Server, start_runtime: StartRuntime, artifacts, lively_base: BaseModel, cache, tmp_path: Path
):
    with postgres.database(f"TEMPLATE {TEMPLATE}") as url:
        async with PostgresStore(url) as restored:
            for seed, (here, target) in enumerate(((store, "7"), (restored, "the giraffe, as they say"))):
                cached = await start_runtime(here, base=lively_base, cache=cache)
                edit = await post(here, cached, replace(UK, target=target))
                version = await changed_version(here, artifacts, lively_base, edit, seed, tmp_path / "delta")
                services = Services(here, cached, None, artifacts)  # type: ignore[arg-type]
                plain = await start_runtime(here, base=lively_base)
                await cached.catch_up()
                assert (edit.id, edit.revision, version) == ("e1", 1, "v1")
                assert await ask_all(cached) == await ask_all(plain)
                await activate(services, version, percent=100, reason=None, actor="tester")
                await plain.catch_up()
                assert await ask_all(cached) == await ask_all(plain)


async def test_each_message_of_a_conversation_counts(
    store, start_runtime: StartRuntime, cache: TieredAnswers, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    monkeypatch.setattr(tiny_base.tokenizer, "chat_template", template)
    plain, cached = await start_runtime(store), await start_runtime(store, cache=cache)
    for first in ("Hello", "Good evening", "Hello"):
        turns = (Message("system", first), Message("user", "How tall is a giraffe?"))
        for request in (GenerationRequest(messages=turns, sampling=GREEDY), GenerationRequest(messages=turns[1:])):
            assert await cached.generate(request) == await plain.generate(request)


async def test_requests_that_are_equal_and_come_together_are_answered_together(
    store, start_runtime: StartRuntime, cache: TieredAnswers, local: LocalAnswers
):
    runtime = await start_runtime(store, cache=cache)
    long = Sampling(max_new_tokens=32)
    together = await asyncio.gather(*(ask(runtime, "Tell me", long) for _ in range(8)))
    assert len(set(together)) == 1
    assert (await ask(runtime, "Tell me", long)) == together[0]
    assert (local.asked.hits, local.asked.misses) == (1, 8)


async def test_who_gives_up_waiting_leaves_the_answer_to_the_others(
    store, start_runtime: StartRuntime, cache: TieredAnswers
):
    runtime = await start_runtime(store, cache=cache)
    first, second = [asyncio.create_task(ask(runtime, "Tell me", Sampling(max_new_tokens=64))) for _ in range(2)]
    await asyncio.sleep(0.01)  # by then, or not, the first is being answered
    first.cancel()
    answer = await second
    assert (first.cancelled() or first.cancelling(), answer.source) == (True, Source.BASE)


async def test_a_stream_is_kept_when_it_is_whole_and_then_comes_at_once_with_the_same_text(
    store, start_runtime: StartRuntime, cache: TieredAnswers, local: LocalAnswers
):
    runtime = await start_runtime(store, cache=cache)

    async def streamed(most: int) -> list[str | Generation]:
        request = GenerationRequest(prompt="Tell me", sampling=Sampling(max_new_tokens=most))
        return [part async for part in (await runtime.stream(request)).parts]

    *pieces, whole = await streamed(32)
    assert isinstance(whole, Generation) and "".join(map(str, pieces)) == whole.text
    assert (local.asked.hits, local.asked.misses) == (0, 1)
    assert await streamed(32) == [whole.text, whole]
    assert await ask(runtime, "Tell me", Sampling(max_new_tokens=32)) == whole
    assert (local.asked.hits, local.asked.misses) == (2, 1)


async def test_an_answer_that_everybody_has_given_up_is_not_written_to_its_end(
    store, start_runtime: StartRuntime, cache: TieredAnswers
):
    runtime = await start_runtime(store, cache=cache)
    long = Sampling(max_new_tokens=200)
    waiting = [asyncio.create_task(ask(runtime, "Tell me", long)) for _ in range(3)]
    while not runtime.backlog().running:  # noqa: ASYNC110 - the thread of the model tells nobody
        await asyncio.sleep(0.001)
    for one in waiting:
        one.cancel()
    await asyncio.wait(waiting)
    await asyncio.sleep(0)
    assert runtime.backlog() == Backlog(running=0, waiting=0)
    assert (await ask(runtime, "Tell me", long)).usage.completion_tokens > 0
