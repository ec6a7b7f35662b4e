"""Generations: answer a prompt. No SQL on this path, but to load a version that is not served and was named."""

from __future__ import annotations

from service.actions.services import Services
from service.domain.generations import Generation, GenerationRequest, Stream


async def generate(services: Services, request: GenerationRequest) -> Generation:
    """Answer with the edit in whose scope the prompt is, or else with the model's version asked for.

    Raises:
        PromptTooLong: Prompt and answer do not fit in the context.
        NoChatTemplate: Messages were sent to a base that has no chat template.
        VersionNotFound: No such version.
        VersionUnavailable: The version that should answer could not be loaded here.
        BaseMismatch, ArtifactDamaged, Unavailable, StorageFull: Nor could the one that the request names.
        NotCaughtUp: `min_revision` was not reached in time.
        QueueFull: As many requests wait for the model as may.
        EngineFailed: The model failed; it is being brought back.
    """
    return await services.runtime.generate(request)


async def stream(services: Services, request: GenerationRequest) -> Stream:
    """Answer piece by piece, with the same text; raises as `generate` does."""
    return await services.runtime.stream(request)
