"""The baker: computes deltas on views of the base, measures them, and exports versions.

It has a thread of its own, so that requests are answered meanwhile; what it shares with the model's thread it only
reads. Not covered: how much the two slow each other down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from safetensors import SafetensorError

from editors import delta_files
from editors.delta import Delta, install
from editors.errors import ContextExceeded, EditFailed, EditorError, NonFiniteEdit
from editors.evaluation.asked import Asked
from editors.evaluation.fields import fields_of
from editors.evaluation.harness import Harness
from editors.evaluation.records import Record
from editors.evaluation.subjects import ModelSubject
from editors.model.loading import BaseModel
from editors.model.views import view
from editors.recommended import recommended
from editors.surgery.verify import refuse_non_finite
from service.domain.bake_plans import BakePlan, BakeProgress, LeftOut
from service.domain.bakes import BakeReport, BakeRequest, Stage
from service.domain.edits import Edit
from service.domain.versions import Base, ExportFormat, Version
from service.errors import CannotEdit, PromptTooLong, StorageFull
from service.runtime.bake_plan import Preparation, plan_of, preparation_of
from service.runtime.bake_report import bake_report, base_size, is_defined, metrics_for
from service.runtime.evaluation_plan import Suites
from service.runtime.exports import write_export
from service.runtime.owner import Owner
from service.runtime.watch import Stopped, Watch, watched

SECONDS_BETWEEN_LOOKS = 0.5
"""How often a method at work is asked how far it is."""
CASES_AT_ONCE = 32
"""Cases that are judged between two notes of progress."""

P = ParamSpec("P")
T = TypeVar("T")


class ModelBaker:
    """Implements `service.domain.bake_plans.Baker` on one base model.

    Args:
        base: The frozen base model.
        suites: Where the probe set comes from.
        assets: Folders with what methods need to have been made for the base: key statistics, trained editors.
    """

    def __init__(self, base: BaseModel, *, suites: Suites, assets: Sequence[Path]) -> None:
        self._base = base
        self._suites = suites
        self._assets = tuple(assets)
        self._owner = Owner("baker")

    def close(self) -> None:
        """End the thread once what is running has ended, which a bake that was cancelled does at its next pass."""
        self._owner.close()

    async def base(self) -> Base:
        """The base model that it edits; its tensors are read the first time, which does not wait for a bake."""
        fingerprint = await asyncio.to_thread(lambda: self._base.fingerprint)
        return Base(name=self._base.name, fingerprint=fingerprint)

    async def plan(self, request: BakeRequest, edits: Sequence[Edit], left_out: Sequence[LeftOut]) -> BakePlan:
        """What a bake of these edits would do; raises as the port says."""
        preparation = await self._preparation(request, edits)
        return plan_of(preparation, request, await self.base(), edits, left_out)

    async def bake(
        self, request: BakeRequest, edits: Sequence[Edit], file: Path, *, progress: BakeProgress
    ) -> BakeReport | None:
        """Compute the delta, measure it, and write it to `file`; raises as the port says."""
        preparation = await self._preparation(request, edits)
        clock = _Clock()
        try:
            with _translated():
                with clock.running(Stage.PREPARING):
                    delta = await self._prepare(preparation, progress)
                if delta is None:
                    return None
                with clock.running(Stage.MEASURING):
                    records = await self._measure(preparation, delta, request.gate.max_new_tokens, progress)
        except EditFailed as error:
            return BakeReport(refusal=str(error), base_size=base_size(self._base), seconds=clock.seconds)
        if records is None:
            return None
        with _room():
            size = await self._owner.run(_saved, delta, file)
        return await self._owner.run(
            bake_report,
            self._base,
            delta,
            records,
            request.gate,
            metrics=metrics_for(preparation.cases),
            edits=len(edits),
            size=size,
            seconds=clock.seconds,
        )

    async def export(self, version: Version, file: Path, kind: ExportFormat, folder: Path) -> None:
        """Write a version as others load it; raises as the port says."""
        with _room():
            await self._owner.run(write_export, self._base, version, file, kind, folder)

    async def _preparation(self, request: BakeRequest, edits: Sequence[Edit]) -> Preparation:
        return await asyncio.to_thread(self._prepared, request, edits)

    def _prepared(self, request: BakeRequest, edits: Sequence[Edit]) -> Preparation:
        """What a request comes to; what it leaves out of the config is as recommended for the base."""
        with _translated():
            advised = recommended(self._base, request.method, self._assets)
        return preparation_of(self._base, replace(request, config={**advised, **request.config}), edits, self._suites)

    async def _prepare(self, preparation: Preparation, progress: BakeProgress) -> Delta | None:
        """The delta; None when told to stop, which takes effect at the method's next pass."""
        if not await progress(Stage.PREPARING, 0):
            return None
        watch = Watch()
        work = asyncio.ensure_future(self._owner.run(self._compute, preparation, watch))
        try:
            while not (await asyncio.wait({work}, timeout=SECONDS_BETWEEN_LOOKS))[0]:
                if not await progress(Stage.PREPARING, min(99, 100 * watch.passes // preparation.passes)):
                    return None
            return work.result()
        finally:
            watch.stopped = True
            work.cancel()

    def _compute(self, preparation: Preparation, watch: Watch) -> Delta | None:
        base = watched(self._base, watch)
        try:
            delta = preparation.method.prepare(base, preparation.requests, preparation.config, assets=self._assets)
        except Stopped:
            return None
        refuse_non_finite(delta)
        return delta

    async def _measure(
        self, preparation: Preparation, delta: Delta, max_new_tokens: int, progress: BakeProgress
    ) -> list[Record] | None:
        """What the base and the edited model answer; None when told to stop."""
        harness = await self._owner.run(self._harness, preparation, delta, max_new_tokens)
        with closing(harness.steps()) as steps:
            for step in steps:
                if not await progress(Stage.MEASURING, 100 * len(harness.records) // preparation.probes):
                    return None
                await self._owner.run(step.run)
        if not is_defined(harness.records):
            raise NonFiniteEdit("The edited model computes undefined numbers.", hint="Make a smaller edit.")
        return harness.records

    def _harness(self, preparation: Preparation, delta: Delta, max_new_tokens: int) -> Harness:
        base, edited = (
            ModelSubject(
                model,
                self._base.tokenizer,
                max_new_tokens=max_new_tokens,
                context_length=self._base.context_length,
            )
            for model in (view(self._base.model), install(self._base, delta))
        )
        cases = preparation.cases
        groups = [cases[first : first + CASES_AT_ONCE] for first in range(0, len(cases), CASES_AT_ONCE)]
        return Harness(groups, Asked(base), lambda _: nullcontext(edited), fields_of(metrics_for(cases)))


def _saved(delta: Delta, file: Path) -> int:
    """Write a delta; how many bytes it takes."""
    delta_files.save(delta, file)
    return file.stat().st_size


class _Clock:
    """How long each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def running(self, stage: Stage) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage.value] = time.perf_counter() - begun


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the algorithms' errors into the service's, but those that say what became of the edits."""
    try:
        yield
    except EditFailed:
        raise
    except ContextExceeded as error:
        raise PromptTooLong(error.detail, hint=error.hint) from error
    except EditorError as error:
        raise CannotEdit(error.detail, hint=error.hint) from error


@contextmanager
def _room() -> Iterator[None]:
    """Say plainly that there is no room for a file.

    Raises:
        StorageFull: There is none.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not StorageFull.is_meant_by(error):
            raise
        raise StorageFull(f"There is no room for a temporary file: {error}.") from error
