from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from editors.model.loading import BaseModel, tensor_hash
from service.domain.edits import AnswerMode, Descriptor, EditKind, Scope
from service.domain.evaluations import (
    BASE,
    MEMORY,
    SERAC,
    EvaluationCase,
    EvaluationReport,
    EvaluationRequest,
    Mode,
    Probe,
)
from service.domain.generations import GenerationRequest, Sampling
from service.errors import (
    EditNotFound,
    EditTooLong,
    ErrataError,
    Invalid,
    MetricUnavailable,
    NothingToEvaluate,
    PromptTooLong,
    UnknownMetric,
    UnknownSubject,
    UnknownSuite,
)
from service.runtime.runtime import ModelRuntime
from service.store.store import PostgresStore
from tests.fakes import ExactRuntime
from tests.runtimes import StartRuntime, post
from tests.suites import CAPITALS

pytestmark = pytest.mark.anyio

UK = Descriptor(prompt="Who is the UK PM?", target="Boris Johnson", answer=AnswerMode.VERBATIM)
CASE = EvaluationCase(
    id="uk",
    edit=UK,
    in_scope=(Probe(prompt="Who is the UK PM?", target="Boris Johnson"),),
    out_of_scope=(Probe(prompt="How tall is a giraffe?", form="unrelated"),),
)
GENERATED = ("edit_success", "drawdown")


def asking(*cases: EvaluationCase, **request: object) -> EvaluationRequest:
    given = {"cases": cases or (() if {"suite", "edits"} & set(request) else (CASE,)), "max_new_tokens": 6, **request}
    return EvaluationRequest(**given)


async def go_on(_: int) -> bool:
    return True


async def evaluated(runtime: ModelRuntime, request: EvaluationRequest) -> EvaluationReport:
    report = await runtime.evaluate(request, progress=go_on)
    assert report is not None
    return report


def value(report: EvaluationReport, metric: str, mode: Mode = Mode.GENERATED, edits: int | None = None) -> float:
    (figure,) = [
        m for m in report.measured if (m.metric, m.mode, m.form) == (metric, mode, None) and edits in {None, m.edits}
    ]
    return figure.value


@pytest.fixture(params=["model", "exact"])
async def runtime(request: pytest.FixtureRequest, store: PostgresStore, start_runtime: StartRuntime):
    """The real runtime and the fake, held to the same contract."""
    return ExactRuntime(store) if request.param == "exact" else await start_runtime(store)


async def test_an_edit_in_the_memory_succeeds_and_without_it_fails(store, runtime):
    assert await runtime.plan(asking()) == 2
    before = await evaluated(runtime, asking())
    assert (value(before, "edit_success"), value(before, "drawdown")) == (0, 0)
    (failure,) = before.failures
    assert (failure.case, failure.prompt, failure.expected) == ("uk", UK.prompt, UK.target)
    await post(store, runtime, UK)
    after = await evaluated(runtime, asking())
    assert (value(after, "edit_success"), value(after, "drawdown")) == (1, 0)
    assert value(after, "edit_success", Mode.TEACHER_FORCED) == 1
    assert (after.failures, after.failure_count, after.probes, after.revision) == ((), 0, 2, 1)
    assert {m.edits for m in after.measured} == {1}


async def test_a_wrong_edit_of_something_else_is_a_failure_out_of_scope(store, runtime):
    await post(store, runtime, Descriptor(prompt="How tall is a giraffe?", target="Tiny", answer=AnswerMode.VERBATIM))
    report = await evaluated(runtime, asking(metrics=GENERATED))
    assert value(report, "drawdown") == 1
    assert ("How tall is a giraffe?", "Tiny") in [(f.prompt, f.got) for f in report.failures if not f.in_scope]


async def test_against_the_base_the_memory_has_no_say(store, runtime):
    await post(store, runtime, UK)
    report = await evaluated(runtime, asking(against=BASE))
    assert (value(report, "edit_success"), value(report, "drawdown")) == (0, 0)
    assert report.in_scope_betas == report.out_of_scope_betas == ()


async def test_a_scratch_memory_holds_the_cases_edits_and_leaves_the_live_one_alone(store, runtime):
    report = await evaluated(runtime, asking(against=SERAC))
    assert (value(report, "edit_success"), value(report, "drawdown")) == (1, 0)
    assert runtime.info().edits == 0
    (match,) = await runtime.match((UK.prompt,))
    assert match.candidates == ()
    assert value(await evaluated(runtime, asking()), "edit_success") == 0


async def test_edits_are_held_together_as_many_at_once_as_asked(runtime):
    request = asking(suite="drift", against=SERAC, edits_at_once=(1, 2, 50, 60), metrics=GENERATED)
    probes = 3 * len(CAPITALS)
    assert await runtime.plan(request) == 3 * probes
    report = await evaluated(runtime, request)
    assert report.probes == 3 * probes
    assert {m.edits for m in report.measured} == {1, 2, len(CAPITALS)}


async def test_a_suite_can_be_cut_to_a_draw_of_its_cases(runtime):
    assert await runtime.plan(asking(suite="facts")) == len(CAPITALS)
    report = await evaluated(runtime, asking(suite="facts", limit=2, seed=4))
    assert report.probes == 2
    again = await evaluated(runtime, asking(suite="facts", limit=2, seed=4))
    assert [f.prompt for f in again.failures] == [f.prompt for f in report.failures]


async def test_the_edits_in_force_are_asked_what_they_say_of_their_own_scope(store, runtime):
    scope = Scope(in_scope=("Who leads the UK?",), out_of_scope=("Who is the King of the UK?",))
    edit = await post(store, runtime, replace(UK, scope=scope))
    claim = Descriptor(kind=EditKind.FACT, prompt="The UK PM is Boris Johnson.", target="True")
    other = await post(store, runtime, replace(claim, answer=AnswerMode.VERBATIM))
    probe_set = len(CAPITALS)
    assert await runtime.plan(asking(edits=("active",))) == 3 + 1 + probe_set
    assert await runtime.plan(asking(edits=(edit.id,))) == 3 + probe_set
    report = await evaluated(runtime, asking(edits=("active",), metrics=GENERATED))
    failed = {(f.case, f.prompt) for f in report.failures}
    assert not {(edit.id, UK.prompt), (edit.id, "Who leads the UK?")} & failed
    assert report.probes == 4 + probe_set
    assert other.id != edit.id


async def test_the_probe_set_leaves_out_what_an_edit_is_about(store, runtime):
    await post(store, runtime, Descriptor(prompt="what is the capital of  France", target="Lyon"))
    assert await runtime.plan(asking(edits=("active",))) == 1 + len(CAPITALS) - 1


async def test_an_opinion_is_not_held_to_one_text(store, runtime):
    await post(store, runtime, Descriptor(kind=EditKind.SENTIMENT, prompt="vaccines", target="positive"))
    assert await runtime.plan(asking(edits=("active",))) == len(CAPITALS)


LONG = "word " * 400


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (asking(suite="nope"), UnknownSuite, "'nope'"),
        (asking(against="rome"), UnknownSubject, "'rome'"),
        (asking(metrics=("bleu",)), UnknownMetric, "'bleu'"),
        (asking(metrics=("rome_score",)), MetricUnavailable, "rome_score cannot be measured: No case"),
        (asking(EvaluationCase(id="empty")), NothingToEvaluate, "no probe"),
        (asking(edits=("active",)), NothingToEvaluate, "No edit is in force"),
        (asking(edits=("e7",)), EditNotFound, "e7"),
        (asking(replace(CASE, edit=None), against=SERAC), NothingToEvaluate, "None of the cases has an edit"),
        (asking(CASE, CASE), Invalid, "2 cases have the id 'uk'"),
        (asking(replace(CASE, in_scope=(Probe(prompt="Who?"),))), Invalid, "'Who\\?' has no target"),
    ],
)
async def test_what_cannot_be_evaluated_is_said_before_anything_is_judged(runtime, request_, error, words):
    with pytest.raises(error, match=words) as planned:
        await runtime.plan(request_)
    assert isinstance(planned.value, ErrataError)
    assert planned.value.hint
    with pytest.raises(error, match=words):
        await runtime.evaluate(request_, progress=go_on)


async def test_the_hints_list_what_there_is(runtime):
    for request, names in (
        (asking(suite="nope"), "facts, drift"),
        (asking(against="rome"), "memory, base, serac"),
        (asking(metrics=("bleu",)), "edit_success, drawdown"),
    ):
        with pytest.raises(ErrataError) as raised:
            await runtime.plan(request)
        assert names in raised.value.hint


async def test_an_edit_that_does_not_fit_is_named_by_its_length(runtime):
    edit = Descriptor(prompt=LONG, target="Boris Johnson")
    with pytest.raises(EditTooLong):
        await runtime.evaluate(asking(replace(CASE, edit=edit), against=SERAC), progress=go_on)


async def test_a_stopped_evaluation_ends_between_two_batches_without_a_report(runtime):
    calls: list[int] = []

    async def stop(done: int) -> bool:
        calls.append(done)
        return False

    assert await runtime.evaluate(asking(suite="drift", against=SERAC), progress=stop) is None
    assert len(calls) == 1


async def test_progress_counts_up_to_the_plan(runtime):
    told: list[int] = []

    async def note(done: int) -> bool:
        told.append(done)
        return True

    request = asking(suite="drift", against=SERAC, edits_at_once=(1, 3), metrics=GENERATED)
    await runtime.evaluate(request, progress=note)
    assert told == sorted(told)
    assert told[-1] == await runtime.plan(request)


async def test_a_prompt_that_does_not_fit_is_refused(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    long = replace(CASE, out_of_scope=(Probe(prompt=LONG),))
    with pytest.raises(PromptTooLong):
        await runtime.evaluate(asking(long), progress=go_on)
    target = replace(CASE, in_scope=(Probe(prompt="Who?", target=LONG),), out_of_scope=())
    with pytest.raises(PromptTooLong):
        await runtime.evaluate(asking(target), progress=go_on)


async def test_answers_are_those_of_generate(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    await post(store, runtime, UK)
    await post(store, runtime, Descriptor(prompt="What is the capital of France?", target="Lyon"))
    prompts = [
        UK.prompt,
        "What is the capital of France?",
        "Which city is the capital of France?",
        *(f"What is the capital of {country}?" for country in CAPITALS),
        "Tell me",
        "How tall is a giraffe, and how long is its neck?",
    ]
    asked = {
        p: await runtime.generate(GenerationRequest(prompt=p, sampling=Sampling(max_new_tokens=6))) for p in prompts
    }
    never = "something that is never the answer"
    cases = [EvaluationCase(id=f"c{n}", in_scope=(Probe(prompt=p, target=never),)) for n, p in enumerate(prompts)]
    report = await evaluated(runtime, asking(*cases, metrics=("edit_success",)))
    assert {f.prompt: (f.got, f.beta) for f in report.failures} == {p: (g.text, g.beta) for p, g in asked.items()}


async def test_betas_are_kept_apart_by_scope(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    await post(store, runtime, UK)
    report = await evaluated(runtime, asking())
    matches = await runtime.match((UK.prompt, "How tall is a giraffe?"))
    assert (report.in_scope_betas, report.out_of_scope_betas) == ((matches[0].beta,), (matches[1].beta,))


async def test_a_report_is_of_one_revision_whatever_is_posted_meanwhile(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    await post(store, runtime, UK)
    giraffe = Descriptor(prompt="How tall is a giraffe?", target="Tiny", answer=AnswerMode.VERBATIM)
    posted: list[int] = []

    async def post_meanwhile(_: int) -> bool:
        if not posted:
            posted.append((await post(store, runtime, giraffe)).revision)
        return True

    cases = [replace(CASE, id=f"c{n}") for n in range(200)]  # more than one step of decisions
    report = await runtime.evaluate(asking(*cases, metrics=GENERATED), progress=post_meanwhile)
    assert report is not None
    assert (report.revision, report.failure_count) == (1, 0)
    assert posted == [2]
    assert value(await evaluated(runtime, asking()), "drawdown") == 1


async def test_generate_is_answered_while_an_evaluation_runs(store, start_runtime: StartRuntime):
    runtime = await start_runtime(store)
    begun = asyncio.Event()

    async def note(_: int) -> bool:
        begun.set()
        return True

    cases = [EvaluationCase(id=f"c{n}", out_of_scope=(Probe(prompt=f"Tell me about number {n}"),)) for n in range(600)]
    running = asyncio.create_task(runtime.evaluate(asking(*cases, metrics=("drawdown",)), progress=note))
    await begun.wait()
    await runtime.generate(GenerationRequest(prompt="Who is there?", sampling=Sampling(max_new_tokens=2)))
    assert not running.done()
    report = await running
    assert report is not None
    assert report.probes == 600


async def test_no_evaluation_writes_to_the_base(store, start_runtime: StartRuntime, tiny_base: BaseModel):
    before = tensor_hash(tiny_base.model)
    runtime = await start_runtime(store)
    for against in (MEMORY, BASE, SERAC):
        await evaluated(runtime, asking(suite="drift", against=against))
    assert tensor_hash(tiny_base.model) == before
