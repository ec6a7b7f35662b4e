from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from editors.model.loading import BaseModel, load_base, load_counterfactual
from service.domain.edits import AnswerMode, Descriptor, EditKind, Embeddings, NewEdit, Scope
from service.domain.evaluations import EvaluationCase, EvaluationRequest, Probe
from service.domain.generations import FinishReason, GenerationRequest, Message, Sampling, Source
from service.domain.matches import Decision
from service.errors import NoChatTemplate, NotCaughtUp, PromptTooLong, VersionNotFound
from service.runtime.engine import TransformersEngine
from tests.runtimes import StartRuntime, post

pytestmark = pytest.mark.anyio

UK = Descriptor(prompt="Who is the UK PM?", target="Boris Johnson", answer=AnswerMode.VERBATIM)


def asking(prompt: str = "Who is the UK PM?", **request: object) -> GenerationRequest:
    sampling = request.pop("sampling", Sampling(max_new_tokens=6))
    return GenerationRequest(prompt=prompt, sampling=sampling, **request)


async def test_a_greedy_answer_is_the_models_own(store, start_runtime: StartRuntime, tiny_base: BaseModel):
    runtime = await start_runtime(store)
    ids = tiny_base.tokenizer("Tell me more", return_tensors="pt")["input_ids"]
    output = tiny_base.model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    expected = tiny_base.tokenizer.decode(output, skip_special_tokens=True).strip()
    generation = await runtime.generate(asking("Tell me more"))
    assert generation.text == expected
    assert generation.usage.prompt_tokens == ids.shape[1]
    assert generation.usage.completion_tokens == len(output)


async def test_a_stream_says_piece_by_piece_what_generate_says(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    await post(store, runtime, UK)
    read = replace(UK, prompt="What is the capital of France?", target="Lyon", answer=AnswerMode.COUNTERFACTUAL)
    await post(store, runtime, read)
    for prompt in (UK.prompt, read.prompt, "Tell me more"):
        for stripped in (True, False):
            request = asking(prompt, sampling=Sampling(max_new_tokens=20), stripped=stripped)
            expected = await runtime.generate(request)
            stream = await runtime.stream(request)
            *pieces, whole = [part async for part in stream.parts]
            assert ("".join(pieces), whole) == (expected.text, expected)
            assert (stream.head.edit_id, stream.head.version) == (expected.edit_id, expected.version)
            assert (expected.text == expected.text.strip()) or not stripped


async def test_the_same_seed_gives_the_same_sample_whatever_ran_between(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    sampled = Sampling(max_new_tokens=12, temperature=1.5, seed=5)
    first = await runtime.generate(asking(sampling=sampled))
    other = await runtime.generate(asking(sampling=replace(sampled, seed=6)))
    again = await runtime.generate(asking(sampling=sampled))
    assert first.text == again.text
    assert first.text != other.text


async def test_an_answer_ends_before_its_first_stop_string(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    full = (await runtime.generate(asking(sampling=Sampling(max_new_tokens=12)))).text
    stop = full[3:5]
    cut = await runtime.generate(asking(sampling=Sampling(max_new_tokens=12, stop=(stop, "never there"))))
    assert cut.text == full[: full.index(stop)].strip()
    assert cut.finish_reason is FinishReason.STOP


async def test_an_answer_cut_by_its_length_says_so(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    generation = await runtime.generate(asking(sampling=Sampling(max_new_tokens=2)))
    assert generation.finish_reason is FinishReason.LENGTH
    assert generation.usage.completion_tokens == 2


async def test_a_verbatim_edit_answers_with_its_target_and_reads_no_token(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    edit = await post(store, runtime, UK)
    generation = await runtime.generate(asking())
    assert (generation.text, generation.source, generation.edit_id) == ("Boris Johnson", Source.EDIT, edit.id)
    assert generation.beta is not None and generation.beta > 0.99
    assert generation.revision == edit.revision
    assert generation.usage.prompt_tokens == 0


async def test_a_counterfactual_model_of_its_own_reads_the_edit_and_the_base_answers_the_rest(
    store, start_runtime: StartRuntime, model_folders: dict[str, Path]
):
    reader = load_counterfactual(model_folders["gpt2"], device="cpu")
    runtime = await start_runtime(store, counterfactual=reader)
    elsewhere = await runtime.generate(asking("Tell me more"))
    await post(store, runtime, replace(UK, answer=AnswerMode.COUNTERFACTUAL))
    read = "New fact: Who is the UK PM? Boris Johnson\nWho is the UK PM?"
    expected = TransformersEngine(reader).complete(read, Sampling(max_new_tokens=6))
    assert (await runtime.generate(asking())).text == expected.text.strip()
    assert (await runtime.generate(asking("Tell me more"))).text == elsewhere.text
    said = (Message("user", "Who is the UK PM?"),)
    in_chat = await runtime.generate(GenerationRequest(messages=said, sampling=Sampling(max_new_tokens=6)))
    assert in_chat.text == expected.text.strip()


async def test_an_evaluation_asks_the_counterfactual_model_that_serves(
    store, start_runtime: StartRuntime, model_folders: dict[str, Path]
):
    runtime = await start_runtime(store, counterfactual=load_counterfactual(model_folders["gpt2"], device="cpu"))
    await post(store, runtime, replace(UK, answer=AnswerMode.COUNTERFACTUAL))
    served = await runtime.generate(asking())
    probe = Probe(prompt="Who is the UK PM?", target="an answer that nobody gives")
    request = EvaluationRequest(cases=(EvaluationCase(id="uk", in_scope=(probe,)),), max_new_tokens=6)
    report = await runtime.evaluate(request, progress=_go_on)
    assert report is not None
    assert [failure.got for failure in report.failures] == [served.text]


async def _go_on(_: int) -> bool:
    return True


async def test_a_counterfactual_answer_is_the_base_reading_the_edit(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    expected = await runtime.generate(asking("New fact: Who is the UK PM? Boris Johnson\nWho is the UK PM?"))
    await post(store, runtime, replace(UK, answer=AnswerMode.COUNTERFACTUAL))
    generation = await runtime.generate(asking())
    assert generation.source is Source.EDIT
    assert generation.text == expected.text


@pytest.mark.parametrize(
    ("kind", "prompt", "target", "read_as"),
    [
        (EditKind.FACT, "The UK PM is Boris.", "True", "New fact: True or false: The UK PM is Boris. True"),
        (EditKind.STATEMENT, "The UK PM is Boris.", "", "New fact: The UK PM is Boris."),
        (EditKind.SENTIMENT, "vaccines", "positive", "Topic: vaccines Sentiment: Positive"),
    ],
)
async def test_every_kind_of_edit_is_read_in_its_own_words(
    store, start_runtime: StartRuntime, kind: EditKind, prompt: str, target: str, read_as: str
):
    runtime = await start_runtime(store)
    question = "What do you think about vaccines?" if kind is EditKind.SENTIMENT else prompt
    expected = await runtime.generate(asking(f"{read_as}\n{question}"))
    edit = await post(store, runtime, Descriptor(kind=kind, prompt=prompt, target=target))
    generation = await runtime.generate(asking(question))
    assert (generation.edit_id, generation.text) == (edit.id, expected.text)


async def test_a_change_of_another_process_is_installed_by_catching_up(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    other = await start_runtime(store)
    await post(store, other, UK)
    assert (await runtime.generate(asking())).source is Source.BASE
    assert await runtime.catch_up() == 1
    assert (await runtime.generate(asking())).text == "Boris Johnson"


async def test_min_revision_reads_what_another_process_wrote(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    edit = await post(store, await start_runtime(store), UK)
    assert (await runtime.generate(asking(min_revision=edit.revision))).text == "Boris Johnson"


async def test_min_revision_waits_for_a_change_still_to_come(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    answer = asyncio.create_task(runtime.generate(asking(min_revision=1)))
    await asyncio.sleep(0.05)
    await post(store, runtime, UK)
    assert (await answer).text == "Boris Johnson"


async def test_a_revision_that_does_not_come_is_an_error_that_says_where_we_are(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store, catch_up_seconds=0.1)
    with pytest.raises(NotCaughtUp, match="at revision 0; 7 was asked for"):
        await runtime.generate(asking(min_revision=7))


async def test_a_new_start_serves_what_was_committed(store, start_runtime: StartRuntime):
    edit = await post(store, await start_runtime(store), UK)
    restarted = await start_runtime(store)
    assert (restarted.info().revision, restarted.info().edits) == (edit.revision, 1)
    assert (await restarted.generate(asking())).text == "Boris Johnson"


async def test_embeddings_of_another_encoder_are_made_again_at_the_start(store, start_runtime: StartRuntime):
    async with store.writing(actor="tester") as writing:
        await writing.edits.add(NewEdit(descriptor=UK), Embeddings(encoder="an older one", vectors=b"\0" * 8))
    runtime = await start_runtime(store)
    assert (await runtime.generate(asking())).text == "Boris Johnson"
    async with store.reading() as reading:
        (stored,) = await reading.edits.active()
        assert stored.embeddings.encoder == runtime.info().memory["encoder"]
        assert await reading.changes.revision() == 1


async def test_an_edit_stops_answering_when_it_expires(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    await post(store, runtime, UK, expires_at=datetime.now(UTC) + timedelta(seconds=1))
    assert (await runtime.generate(asking())).source is Source.EDIT
    await asyncio.sleep(1.1)
    assert (await runtime.generate(asking())).source is Source.BASE


async def test_of_many_edits_those_that_do_not_fit_are_told_by_their_places(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    counted = replace(UK, answer=AnswerMode.COUNTERFACTUAL)
    long, verbatim = replace(counted, target="long " * 400), replace(UK, target="long " * 400)
    found = await runtime.unfit([long, *[counted] * 300, verbatim, long])
    assert sorted(found) == [0, 302]
    assert "tokens" in found[302].detail


async def test_many_edits_are_embedded_as_each_by_itself(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    many = [Descriptor(prompt=f"Question {n}?", scope=Scope(in_scope=("Example?",) * (n % 3))) for n in range(70)]
    batches = [some async for some in runtime.prepare_many(many)]
    assert len(batches) > 2
    assert [one for some in batches for one in some] == [await runtime.prepare(one) for one in many]


async def test_a_match_says_why_each_prompt_fell_as_it_did(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    (empty,) = await runtime.match(("Who is the UK PM?",))
    assert (empty.decision, empty.candidates, empty.beta) == (Decision.NO_EDITS, (), None)
    edit = await post(store, runtime, UK)
    inside, outside = await runtime.match(("Who is the UK PM?", "How tall is a giraffe?"))
    assert (inside.edit_id, inside.decision) == (edit.id, Decision.IN_SCOPE)
    assert (outside.edit_id, outside.decision) == (None, Decision.BELOW_THRESHOLD)
    assert outside.candidates[0].matched_text == "Who is the UK PM?"
    assert outside.beta is not None and outside.threshold is not None and outside.beta < outside.threshold


async def test_prompt_and_answer_must_fit_in_the_context(store, start_runtime: StartRuntime, tiny_base: BaseModel):
    runtime = await start_runtime(store)
    with pytest.raises(PromptTooLong, match=str(tiny_base.context_length)):
        await runtime.generate(asking(sampling=Sampling(max_new_tokens=tiny_base.context_length)))


async def test_a_conversation_needs_a_chat_template(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    user = Message("user", "Who is the UK PM?")
    for turns in ((Message("system", "Be brief."), user), (Message("assistant", "Yes?"),), (user, user)):
        with pytest.raises(NoChatTemplate, match="one message of a user"):
            await runtime.generate(GenerationRequest(messages=turns))


async def test_without_a_chat_template_one_message_of_a_user_is_a_prompt(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    sampling = Sampling(max_new_tokens=6)
    await post(store, runtime, replace(UK, answer=AnswerMode.COUNTERFACTUAL))
    for prompt in (UK.prompt, "How tall is a giraffe?"):  # in the scope of the edit, and out of it
        said = await runtime.generate(GenerationRequest(messages=(Message("user", prompt),), sampling=sampling))
        assert said == await runtime.generate(asking(prompt, sampling=sampling))
        assert said.source is (Source.EDIT if prompt == UK.prompt else Source.BASE)


async def test_a_chat_is_judged_by_what_the_user_said_last(
    store, start_runtime: StartRuntime, tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    monkeypatch.setattr(tiny_base.tokenizer, "chat_template", template)
    runtime = await start_runtime(store)
    await post(store, runtime, UK)
    turns = (Message("user", "How tall is a giraffe?"), Message("assistant", "Tall."), Message("user", UK.prompt))
    answered = await runtime.generate(GenerationRequest(messages=turns, sampling=Sampling(max_new_tokens=4)))
    assert answered.text == "Boris Johnson"
    earlier = await runtime.generate(GenerationRequest(messages=turns[::-1], sampling=Sampling(max_new_tokens=4)))
    assert earlier.source is Source.BASE


async def test_only_the_versions_that_exist_can_be_asked_for(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    assert (await runtime.generate(asking(version="v0"))).version == "v0"
    with pytest.raises(VersionNotFound, match="v7"):
        await runtime.generate(asking(version="v7"))


async def test_a_checkpoints_own_sampling_defaults_are_not_used(model_folders: dict[str, Path], tmp_path: Path):
    folder = Path(shutil.copytree(model_folders["llama"], tmp_path / "opinionated"))
    config = folder / "generation_config.json"
    wishes = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "top_k": 3}
    config.write_text(json.dumps(json.loads(config.read_text()) | wishes))
    opinionated, plain = (TransformersEngine(load_base(f, device="cpu")) for f in (folder, model_folders["llama"]))
    for sampling in (Sampling(max_new_tokens=6), Sampling(max_new_tokens=6, temperature=1.0, seed=1)):
        assert opinionated.complete("Tell me more", sampling) == plain.complete("Tell me more", sampling)
