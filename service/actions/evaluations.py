"""Evaluations: submit, read, cancel, and what a worker does with those that were queued."""

from __future__ import annotations

from service.actions.services import Services
from service.actions.work import Notes, failed
from service.domain.evaluations import Evaluation, EvaluationPage, EvaluationRequest, EvaluationState
from service.domain.receipts import ReceiptFor
from service.errors import EvaluationEnded, EvaluationNotFound

AT_ONCE = 64
"""Most probes that are judged while the caller waits."""


async def submit(
    services: Services, request: EvaluationRequest, *, actor: str, receipt: ReceiptFor[Evaluation] | None = None
) -> Evaluation:
    """Evaluate at once when there are few probes, and queue it otherwise; kept either way.

    Raises:
        As `Runtime.plan`, and for few probes as `Runtime.evaluate`.
        AlreadyAnswered, IdempotencyKeyReused: By the claim of the receipt.
    """
    probes = await services.runtime.plan(request)
    report = None
    if probes <= AT_ONCE:
        report = await services.runtime.evaluate(request, progress=_go_on)
        assert report is not None, "nobody said to stop"
    async with services.store.recording(receipt=receipt) as recording:
        if report is None:
            evaluation = await recording.evaluations.add(request, actor=actor, total=probes)
        else:
            evaluation = await recording.evaluations.add_done(request, report, actor=actor)
        if receipt is not None:
            receipt.settle(evaluation)
        return evaluation


async def read(services: Services, evaluation_id: str) -> Evaluation:
    """The evaluation of that id.

    Raises:
        EvaluationNotFound: There is none.
    """
    async with services.store.reading() as reading:
        return _found(await reading.evaluations.get(evaluation_id), evaluation_id)


async def page(services: Services, *, limit: int, after: str | None) -> EvaluationPage:
    """Evaluations older than the id `after`, newest first."""
    async with services.store.reading() as reading:
        return await reading.evaluations.page(limit=limit, after=after)


async def cancel(services: Services, evaluation_id: str) -> Evaluation:
    """End an evaluation that is queued or running; the worker stops when it next notes progress.

    Raises:
        EvaluationNotFound: There is none of that id.
        EvaluationEnded: It has ended.
    """
    async with services.store.recording() as recording:
        before = _found(await recording.evaluations.get(evaluation_id), evaluation_id)
        after = _found(await recording.evaluations.cancel(evaluation_id), evaluation_id)
    if before.state.ended or after.state is not EvaluationState.CANCELLED:
        raise EvaluationEnded(f"{evaluation_id} has ended: it is {after.state}.")
    return after


async def run(services: Services, evaluation_id: str) -> None:
    """Evaluate what was queued, from the beginning if a worker was stopped in the middle.

    Raises:
        As `Runtime.evaluate`.
    """
    async with services.store.recording() as recording:
        evaluation = await recording.evaluations.start(evaluation_id)
    if evaluation is None:
        return
    notes = Notes(services.store, "evaluation", evaluation_id)

    async def progress(done: int) -> bool:
        return await notes.make(lambda recording: recording.evaluations.advance(evaluation_id, done))

    report = await services.runtime.evaluate(evaluation.request, progress=progress)
    if report is not None:
        async with services.store.recording() as recording:
            await recording.evaluations.finish(evaluation_id, report)


async def give_up(services: Services, evaluation_id: str, error: Exception) -> None:
    """Note why an evaluation failed."""
    async with services.store.recording() as recording:
        await recording.evaluations.fail(evaluation_id, failed("evaluation", evaluation_id, error))


async def _go_on(_: int) -> bool:
    return True


def _found(evaluation: Evaluation | None, evaluation_id: str) -> Evaluation:
    if evaluation is None:
        raise EvaluationNotFound(f"There is no evaluation {evaluation_id}.")
    return evaluation
