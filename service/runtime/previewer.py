"""The previewer: answers prompts with the edits in force, and with one more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from service.domain.edits import Descriptor, Embeddings
from service.domain.generations import Generation, GenerationRequest, Sampling
from service.domain.previews import PREVIEW, Probed
from service.runtime.live_memory import ONE_MORE
from service.runtime.live_state import Decided, LiveState
from service.runtime.owner import Owner

Answer = Callable[[GenerationRequest, Decided], Awaitable[Generation]]
"""How `/generate` answers once it is decided what does."""


class Previewer:
    """Implements `preview` of `service.domain.ports.Runtime`.

    The edits in force do not change: what decides with one more is a memory made for the preview.

    Args:
        state: What is in force; the active version answers.
        owner: Its thread.
        answer: Answers when the decision is taken.
    """

    def __init__(self, state: LiveState, owner: Owner, answer: Answer) -> None:
        self._state = state
        self._owner = owner
        self._answer = answer

    async def preview(
        self,
        descriptor: Descriptor,
        embeddings: Embeddings,
        probes: Sequence[str],
        *,
        without: frozenset[str],
        sampling: Sampling,
    ) -> list[Probed]:
        """Answer each probe before and after; raises as the port says."""
        decisions = await self._owner.run(self._decide, descriptor, embeddings, probes, without)
        return [
            await self._probed(GenerationRequest(prompt=prompt, sampling=sampling), *both)
            for prompt, both in zip(probes, decisions, strict=True)
        ]

    def _decide(
        self, descriptor: Descriptor, embeddings: Embeddings, probes: Sequence[str], without: frozenset[str]
    ) -> list[tuple[Decided, Decided]]:
        """The decisions at one revision, without the edit and with it."""
        before, version = self._state.pinned()
        after = before.with_one_more(descriptor, embeddings, without=without)
        now, then = (memory.decide(probes, without=version.edits) for memory in (before, after))
        return [(Decided(version, one), Decided(version, other)) for one, other in zip(now, then, strict=True)]

    async def _probed(self, request: GenerationRequest, now: Decided, then: Decided) -> Probed:
        before = await self._answer(request, now)
        match = then.verdict.match
        same = now.verdict.match.edit_id == match.edit_id  # and so is the answer, which need not be given twice
        after = replace(before, beta=match.beta) if same else await self._answer(request, then)
        betas = {candidate.edit_id: candidate.beta for candidate in match.candidates}
        named = PREVIEW if after.edit_id == ONE_MORE else after.edit_id
        assert request.prompt is not None
        return Probed(
            prompt=request.prompt, before=before, after=replace(after, edit_id=named), beta=betas.get(ONE_MORE)
        )
