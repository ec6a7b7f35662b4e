"""Durable jobs: procrastinate on the database of the store.

A job is queued in the transaction of the fact that caused it, and deleted when it has ended: its subject says what came
of it. A worker takes one job at a time. A job whose worker is stopped goes back to the queue at once; one whose worker
was killed, when that worker's heartbeat is too old. So a job may be run more than once, and knows how to begin again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueuedJob
from psycopg import OperationalError
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import InternalError, Unavailable
from service.store.urls import conninfo

EVALUATE = "evaluate"
"""The kind of job that runs an evaluation."""
BAKE = "bake"
"""The kind of job that bakes."""

ATTEMPTS = 10
"""How often a job is begun, whatever interrupts it, before it is given up."""
SECONDS_BETWEEN_ATTEMPTS = 10
HEARTBEAT_SECONDS = 5.0
STALLED_SECONDS = 30.0
"""Age of a heartbeat at which its worker is held to be dead."""

_RESCUE = "rescue"
_EVERY_TEN_SECONDS = "* * * * * */10"
_CONNECT_SECONDS = 5

_QUEUE = text(
    "SELECT procrastinate_defer_jobs_v1(ARRAY["
    "ROW(:kind, :kind, 0, :lock, NULL, :arguments, NULL)::procrastinate_job_to_defer_v1])"
).bindparams(bindparam("arguments", type_=JSONB))

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """How one kind of job is done.

    Attributes:
        run: Does the work on the subject of that id. Called again after it was cancelled or raised `Unavailable`.
        give_up: Notes on the subject why the work failed.
    """

    run: Callable[[str], Awaitable[None]]
    give_up: Callable[[str, Exception], Awaitable[None]]


async def queue_job(connection: AsyncConnection, kind: str, subject_id: str, *, lock: str | None = None) -> None:
    """Queue a job in the transaction of `connection`, in the queue of its kind.

    Of the jobs with one `lock`, one is done at a time, whichever workers there are, and in their order.
    """
    await connection.execute(_QUEUE, {"kind": kind, "lock": lock, "arguments": {"subject_id": subject_id}})


async def work(url: str, jobs: Mapping[str, Job]) -> None:
    """Do the jobs of these kinds, and no others, until cancelled; a database that is away is looked for again."""
    while True:
        try:
            async with _app(url, jobs).open_async() as app:
                await app.run_worker_async(
                    queues=[*jobs, _RESCUE],
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=0,
                    update_heartbeat_interval=HEARTBEAT_SECONDS,
                    stalled_worker_timeout=STALLED_SECONDS,
                    delete_jobs="always",
                )
        except (ConnectorException, OperationalError) as error:
            _log.warning("cannot work on jobs", cause=repr(error.__cause__ or error))
        except Exception:
            _log.exception("working on jobs failed")
        await asyncio.sleep(1)


def _app(url: str, jobs: Mapping[str, Job]) -> App:
    connector = PsycopgConnector(
        conninfo=conninfo(url), kwargs={"connect_timeout": _CONNECT_SECONDS}, min_size=1, max_size=4
    )
    app = App(connector=connector)
    for kind, job in jobs.items():
        app.task(name=kind, queue=kind, pass_context=True, retry=_Again())(_attempting(job))

    # Procrastinate stops a worker whose heartbeat fails, but only while it also has something periodic to do.
    @app.periodic(cron=_EVERY_TEN_SECONDS)
    @app.task(name=_RESCUE, queue=_RESCUE, queueing_lock=_RESCUE)
    async def rescue(timestamp: int) -> None:
        """Put the jobs of dead workers back into their queues."""
        for stalled in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS):
            with suppress(ConnectorException):  # another worker was quicker
                await app.job_manager.retry_job(stalled)

    return app


def _attempting(job: Job) -> Callable[[JobContext, str], Awaitable[None]]:
    async def attempt(context: JobContext, subject_id: str) -> None:
        if context.job.attempts >= ATTEMPTS:
            await job.give_up(subject_id, InternalError(f"It was begun {ATTEMPTS} times and interrupted each time."))
            return
        try:
            await job.run(subject_id)
        except Unavailable:
            raise  # `_Again` has it tried again
        except Exception as error:  # it would fail again
            await job.give_up(subject_id, error)

    return attempt


class _Again(BaseRetryStrategy):
    """At once when the worker was stopped, later when the service was unavailable; at some point never."""

    def get_retry_decision(self, *, exception: BaseException, job: QueuedJob) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision()
        if job.attempts >= 2 * ATTEMPTS:  # it cannot even be given up
            return None
        return RetryDecision(retry_in={"seconds": SECONDS_BETWEEN_ATTEMPTS})
