"""The laws of the service, on a tiny random model with the real encoder, index and database."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch

from editors.model.loading import BaseModel, tensor_hash
from service.actions.edit_files import import_
from service.actions.edits import change, submit
from service.actions.previews import preview
from service.actions.services import Services
from service.domain.edits import AnswerMode, Descriptor, Edit, EditState, NewEdit, Scope
from service.domain.generations import Generation, GenerationRequest, Sampling, Source
from service.domain.imports import Line
from service.domain.ports import Reading
from service.domain.previews import PREVIEW
from service.errors import EditTooLong, PromptTooLong
from service.runtime.runtime import ModelRuntime
from service.store.store import PostgresStore
from tests.conftest import TEMPLATE
from tests.databases import Server
from tests.runtimes import StartRuntime, post

pytestmark = pytest.mark.anyio

UK = Descriptor(prompt="Who is the UK PM?", target="Boris Johnson")
FRANCE = Descriptor(prompt="What is the capital of France?", target="Lyon")
SKY = Descriptor(prompt="What colour is the sky?", target="green", answer=AnswerMode.VERBATIM)
EDITS = (UK, FRANCE, SKY)
IN_SCOPE = ("Who is the UK PM?", "What is the capital of France?", "What is the colour of the sky?")
OUT_OF_SCOPE = ("How tall is a giraffe?", "Who wrote Hamlet?", "When does the shop close?", "Sing me a song.")


async def ask(runtime: ModelRuntime, prompts: tuple[str, ...], **request: object) -> list[Generation]:
    sampling = Sampling(max_new_tokens=8)
    return [await runtime.generate(GenerationRequest(prompt=p, sampling=sampling, **request)) for p in prompts]


def texts(generations: list[Generation]) -> list[str]:
    return [generation.text for generation in generations]


async def test_out_of_scope_answers_are_byte_identical_to_the_bases(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    before = texts(await ask(runtime, OUT_OF_SCOPE))
    for edit in EDITS:
        await post(store, runtime, edit)
    after = await ask(runtime, OUT_OF_SCOPE)
    assert texts(after) == before
    assert {generation.source for generation in after} == {Source.BASE}


async def test_retracting_an_edit_restores_the_exact_earlier_answers(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    before = texts(await ask(runtime, IN_SCOPE))
    ids = [(await post(store, runtime, edit)).id for edit in EDITS]
    edited = await ask(runtime, IN_SCOPE)
    assert [generation.edit_id for generation in edited] == ids
    assert texts(edited) != before
    async with store.writing(actor="tester") as writing:
        for edit_id in ids:
            await writing.edits.retract(edit_id)
    await runtime.catch_up()
    assert texts(await ask(runtime, IN_SCOPE)) == before


async def test_edits_answer_alike_in_whatever_order_they_are_posted(store, start_runtime: StartRuntime):
    answers = []
    for order in itertools.permutations(EDITS):
        runtime = await start_runtime(store)
        posted = [await post(store, runtime, edit) for edit in order]
        answers.append(texts(await ask(runtime, IN_SCOPE + OUT_OF_SCOPE)))
        async with store.writing(actor="tester") as writing:
            for edit in posted:
                await writing.edits.retract(edit.id)
    assert all(answer == answers[0] for answer in answers)


async def test_edits_posted_one_by_one_answer_as_edits_loaded_at_once(store, start_runtime: StartRuntime):
    one_by_one = await start_runtime(store)
    for edit in EDITS:
        await post(store, one_by_one, edit)
    at_once = await start_runtime(store)
    prompts = IN_SCOPE + OUT_OF_SCOPE
    assert await ask(at_once, prompts) == await ask(one_by_one, prompts)


async def test_edits_imported_answer_as_edits_posted_one_by_one(store, postgres: Server, start_runtime: StartRuntime):
    one_by_one = await start_runtime(store)
    for edit in EDITS:
        await post(store, one_by_one, edit)
    with postgres.database(f"TEMPLATE {TEMPLATE}") as url:
        async with PostgresStore(url) as other:
            imported = await start_runtime(other)
            services = Services(other, imported, None, None)  # type: ignore[arg-type]
            lines = [
                Line(number=number, new=NewEdit(descriptor=edit), key=edit.key) for number, edit in enumerate(EDITS, 1)
            ]
            await (await import_(services, lines, [], actor="tester"))(lambda _: None)
            prompts = IN_SCOPE + OUT_OF_SCOPE
            assert await ask(imported, prompts) == await ask(one_by_one, prompts)
            assert await imported.match(prompts) == await one_by_one.match(prompts)
            async with store.reading() as posted, other.reading() as added:
                assert await vectors(added) == await vectors(posted)


async def test_a_changed_edit_answers_as_one_posted_so_and_a_paused_one_as_none(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    services = Services(store, runtime, None, None)  # type: ignore[arg-type]
    prompts = IN_SCOPE + OUT_OF_SCOPE
    before = texts(await ask(runtime, prompts))
    posted = await post(store, runtime, FRANCE)
    wanted = texts(await ask(runtime, prompts))

    async def turn(edit: Edit, **fields: object) -> list[str]:
        amend = partial(replace, **fields)
        await change(services, edit.id, amend, revisions=None, reason=None, actor="tester")
        return texts(await ask(runtime, prompts))

    assert await turn(posted, state=EditState.PAUSED) == before
    other = await post(store, runtime, UK)
    assert texts(await ask(runtime, prompts)) != before
    assert await turn(other, descriptor=FRANCE) == wanted
    assert await turn(other, state=EditState.PAUSED) == before
    assert await turn(posted, state=EditState.ACTIVE) == wanted
    assert wanted != before


async def test_a_preview_gives_the_answers_that_the_edit_then_gives_and_leaves_no_trace(
    store, start_runtime: StartRuntime, tiny_base: BaseModel
):
    runtime = await start_runtime(store)
    services = Services(store, runtime, None, None)  # type: ignore[arg-type]
    kept = [await post(store, runtime, edit) for edit in (FRANCE, SKY)]
    other = Descriptor(prompt=FRANCE.prompt, target="Nice", scope=Scope(in_scope=("Where does France govern from?",)))
    prompts = (*IN_SCOPE, *OUT_OF_SCOPE, "Where does France govern from?")
    before = tensor_hash(tiny_base.model), runtime.info(), await ask(runtime, prompts), await runtime.match(prompts)
    for new in (NewEdit(descriptor=UK), NewEdit(descriptor=other, supersedes=kept[0].id), NewEdit(descriptor=other)):
        previewed = await preview(services, new, prompts, Sampling(max_new_tokens=8))
        assert (previewed.conflict is None) == (new.descriptor is UK or new.supersedes is not None)
        assert [probed.before for probed in previewed.probes] == before[2]
        assert (tensor_hash(tiny_base.model), runtime.info(), await ask(runtime, prompts)) == before[:3]
        assert await runtime.match(prompts) == before[3]
        async with store.reading() as reading:
            assert await reading.changes.revision() == 2
            assert [stored.edit for stored in await reading.edits.active()] == kept
    added = await submit(services, NewEdit(descriptor=other, supersedes=kept[0].id), actor="tester")
    then = await ask(runtime, prompts)
    assert {probed.after.edit_id for probed in previewed.probes} == {PREVIEW, kept[1].id, None}
    for probed, generation, match in zip(previewed.probes, then, await runtime.match(prompts), strict=True):
        named = PREVIEW if generation.edit_id == added.id else generation.edit_id
        assert probed.after == replace(generation, edit_id=named, revision=probed.after.revision)
        betas = {candidate.edit_id: candidate.beta for candidate in match.candidates}
        assert probed.beta == betas.get(added.id)


async def vectors(reading: Reading) -> list[bytes]:
    return [stored.embeddings.vectors for stored in await reading.edits.active()]


async def test_the_bases_tensors_hash_the_same_whatever_is_asked(
    store: PostgresStore, start_runtime: StartRuntime, tiny_base: BaseModel
):
    before = tensor_hash(tiny_base.model)
    runtime = await start_runtime(store)
    for edit in EDITS:
        await post(store, runtime, edit)
    await ask(runtime, IN_SCOPE + OUT_OF_SCOPE)
    sampled = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.9, seed=3, stop=("x",))
    await runtime.generate(GenerationRequest(prompt="Anything", sampling=sampled))
    with pytest.raises(PromptTooLong):
        await runtime.generate(GenerationRequest(prompt="word " * 500))
    await runtime.match(IN_SCOPE)
    assert tensor_hash(tiny_base.model) == before
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())


@pytest.mark.parametrize(
    ("descriptor", "error"), [(UK, None), (Descriptor(prompt="long " * 400, target="x"), EditTooLong)]
)
async def test_prepare_leaves_no_trace_also_when_it_raises(
    store, start_runtime: StartRuntime, tiny_base: BaseModel, descriptor: Descriptor, error: type[Exception] | None
):
    runtime = await start_runtime(store)
    before = tensor_hash(tiny_base.model), torch.get_rng_state(), runtime.info(), await ask(runtime, IN_SCOPE)
    if error is None:
        await runtime.prepare(descriptor)
    else:
        with pytest.raises(error):
            await runtime.prepare(descriptor)
    assert tensor_hash(tiny_base.model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert runtime.info() == before[2]
    assert await ask(runtime, IN_SCOPE) == before[3]
    async with store.reading() as reading:
        assert await reading.changes.revision() == 0


async def test_the_memory_says_nothing_when_the_caller_turns_edits_off(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    before = texts(await ask(runtime, IN_SCOPE))
    for edit in EDITS:
        await post(store, runtime, edit)
    off = await ask(runtime, IN_SCOPE, edits=False)
    assert texts(off) == before
    assert {generation.beta for generation in off} == {None}


async def test_an_out_of_scope_example_takes_effect_at_once(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    question = "Who is the prime minister of the United Kingdom?"
    plain = await post(store, runtime, Descriptor(prompt="Who is the UK PM?", target="A", scope=Scope(threshold=0.1)))
    assert (await ask(runtime, (question,)))[0].edit_id == plain.id
    excluding = Descriptor(prompt="Who is the UK PM?", target="A", scope=Scope(threshold=0.1, out_of_scope=(question,)))
    async with store.writing(actor="tester") as writing:
        await writing.edits.retract(plain.id)
        await writing.edits.add(NewEdit(descriptor=excluding), await runtime.prepare(excluding))
    await runtime.catch_up()
    assert (await ask(runtime, (question,)))[0].source is Source.BASE
