"""The engine: the model and its tokenizer, one generation at a time.

Not thread-safe; its owner is the model's thread. Knows nothing of edits.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from editors.model.loading import BaseModel
from service.domain.generations import FinishReason, Message, Sampling, Usage
from service.errors import NoChatTemplate, PromptTooLong


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, as it wrote it."""

    text: str
    usage: Usage
    finish_reason: FinishReason


class TransformersEngine:
    """Generates with a frozen base model through `transformers`.

    Args:
        base: The model; it is only read.
    """

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        end = getattr(base.model.generation_config, "eos_token_id", None)
        self._end_tokens: list[int] = [end] if isinstance(end, int) else list(end or ())

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the model's chat template writes it, ready for the model's turn.

        Raises:
            NoChatTemplate: The model has none.
        """
        if not self._base.tokenizer.chat_template:
            raise NoChatTemplate(f"{self._base.name} has no chat template, so it cannot read messages.")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        rendered = self._base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert isinstance(rendered, str), "one conversation gives one text"
        return rendered

    def count(self, text: str) -> int:
        """How many tokens a prompt takes."""
        return len(self._base.tokenizer(text)["input_ids"])

    def complete(self, prompt: str, sampling: Sampling, *, rendered: bool = False) -> Completion:
        """Continue a prompt.

        Greedy when the temperature is 0. The same seed gives the same sample, whatever ran before.

        Args:
            prompt: What to continue.
            sampling: How.
            rendered: Whether it comes from `render`, with its special tokens in place.

        Raises:
            PromptTooLong: Prompt and answer do not fit in the context.
        """
        ids = self._base.tokenizer(prompt, add_special_tokens=not rendered, return_tensors="pt")["input_ids"]
        self._refuse_overflow(ids.shape[1], sampling.max_new_tokens)
        written = self._generate(ids.to(self._base.device), sampling)
        ended = bool(written) and written[-1] in self._end_tokens
        text, stopped = _until(str(self._base.tokenizer.decode(written, skip_special_tokens=True)), sampling.stop)
        return Completion(
            text=text,
            usage=Usage(prompt_tokens=ids.shape[1], completion_tokens=len(written)),
            finish_reason=FinishReason.STOP if ended or stopped else FinishReason.LENGTH,
        )

    def _refuse_overflow(self, prompt_tokens: int, max_new_tokens: int) -> None:
        room = self._base.context_length
        if prompt_tokens + max_new_tokens > room:
            raise PromptTooLong(
                f"The prompt takes {prompt_tokens} tokens and {max_new_tokens} more were asked for; "
                f"the context of {self._base.name} holds {room}.",
                extra={"prompt_tokens": prompt_tokens, "max_new_tokens": max_new_tokens, "context_length": room},
            )

    def _generate(self, ids: Tensor, sampling: Sampling) -> list[int]:
        """The ids written after the prompt's ids [1, prompt]."""
        config = self._config(sampling)
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        devices = [self._base.device] if self._base.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            generate: Any = self._base.model.generate
            output: Tensor = generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                tokenizer=self._base.tokenizer,
            )
        written: list[int] = output[0, ids.shape[1] :].tolist()
        return written

    def _config(self, sampling: Sampling) -> GenerationConfig:
        chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.temperature > 0,
            eos_token_id=self._end_tokens or None,
            pad_token_id=self._base.tokenizer.pad_token_id,
            stop_strings=list(sampling.stop) or None,
            **(chosen if sampling.temperature > 0 else {}),
        )


def _until(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
