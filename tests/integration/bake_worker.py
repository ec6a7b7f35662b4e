"""Workers to be killed: a process that forks one for each line of JSON, [DATABASE_URL, ARTIFACTS, STAGE], on its input.

The worker writes its process id once it has reached the stage, and waits there; the process says "gone" after it.
Forking saves each of them the time to load what all need.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import torch

from editors.model.loading import BaseModel, load_base
from service.actions import work as actions_work
from service.actions.services import Services
from service.runtime.baker import ModelBaker
from service.store import artifacts as artifacts_module
from service.store.artifacts import ArtifactStore
from service.store.bakes import PostgresBakeWriter
from service.store.jobs import work
from service.store.store import PostgresStore
from service.wiring import jobs
from tests.fakes import ExactRuntime
from tests.suites import SUITES


def wait_to_be_killed() -> None:
    say(str(os.getpid()))
    time.sleep(600)


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


class StoppingArtifacts(ArtifactStore):
    """Stops before, in the middle of, or after putting an artifact."""

    def __init__(self, url: str, stage: str) -> None:
        super().__init__(url)
        self._stage = stage

    async def put(self, file, artifact):
        if self._stage == "claimed":
            wait_to_be_killed()
        if self._stage == "half put":
            artifacts_module._copy = self._half
        await super().put(file, artifact)
        if self._stage == "put":
            wait_to_be_killed()

    def _half(self, source, target):
        target.write(source.read(100))
        target.flush()
        wait_to_be_killed()


class StoppingRuntime(ExactRuntime):
    """Stops once the version is written."""

    stage = ""

    async def catch_up(self):
        if self.stage == "written":
            wait_to_be_killed()
        return await super().catch_up()


def stop_at(stage: str) -> None:
    """Stop once the bake has begun, or has noted that it is in that stage."""
    advance, start = PostgresBakeWriter.advance, PostgresBakeWriter.start

    async def noted(self, bake_id, reached, percent):
        done = await advance(self, bake_id, reached, percent)
        if reached == stage:
            await self._connection.commit()
            wait_to_be_killed()
        return done

    async def begun(self, bake_id):
        bake = await start(self, bake_id)
        if stage == "begun":
            await self._connection.commit()
            wait_to_be_killed()
        return bake

    PostgresBakeWriter.advance, PostgresBakeWriter.start = noted, begun
    StoppingRuntime.stage = stage


async def bake(base: BaseModel, url: str, folder: str, stage: str) -> None:
    stop_at(stage)
    async with PostgresStore(url) as store:
        baker = ModelBaker(base, suites=SUITES, assets=())
        await work(url, jobs(Services(store, StoppingRuntime(store), baker, StoppingArtifacts(folder, stage))))


def main(model: str) -> None:
    torch.set_num_threads(1)
    actions_work.SECONDS_BETWEEN_NOTES = 0.0
    base = load_base(Path(model), device="cpu")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(bake(base, *json.loads(line)))
        os.waitpid(child, 0)
        say("gone")


if __name__ == "__main__":
    main(sys.argv[1])
