"""The engine: the model and its tokenizer, one piece of work at a time.

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

from editors.model.generation import answers_in, continue_greedily, end_tokens
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
    """Generates with a frozen model through `transformers`.

    Args:
        model: It is only read.
    """

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self._end_tokens = end_tokens(model.model)

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the model's chat template writes it, ready for the model's turn.

        Raises:
            NoChatTemplate: The model has none.
        """
        if not self.model.tokenizer.chat_template:
            raise NoChatTemplate(f"{self.model.name} has no chat template, so it cannot read messages.")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        rendered = self.model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert isinstance(rendered, str), "one conversation gives one text"
        return rendered

    def count(self, text: str) -> int:
        """How many tokens a prompt takes."""
        return len(self.model.tokenizer(text)["input_ids"])

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
        ids = self.model.tokenizer(prompt, add_special_tokens=not rendered, return_tensors="pt")["input_ids"]
        self._refuse_overflow(ids.shape[1], sampling.max_new_tokens)
        written = self._generate(ids.to(self.model.device), sampling)
        return self._completion(ids.shape[1], written, sampling.stop)

    def complete_many(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[Completion]:
        """Continue prompts in batches, each as `complete` does greedily and without stop strings; in their order.

        Raises:
            PromptTooLong: A prompt and its answer do not fit in the context.
        """
        encoded = [list(self.model.tokenizer(prompt)["input_ids"]) for prompt in prompts]
        for ids in encoded:
            self._refuse_overflow(len(ids), max_new_tokens)
        written = continue_greedily(self.model.model, encoded, max_new_tokens=max_new_tokens)
        return [self._completion(len(ids), new, ()) for ids, new in zip(encoded, written, strict=True)]

    def _completion(self, prompt_tokens: int, written: list[int], stop: tuple[str, ...]) -> Completion:
        ended = bool(written) and written[-1] in self._end_tokens
        text, stopped = _until(str(self.model.tokenizer.decode(written, skip_special_tokens=True)), stop)
        return Completion(
            text=text,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(written)),
            finish_reason=FinishReason.STOP if ended or stopped else FinishReason.LENGTH,
        )

    def _refuse_overflow(self, prompt_tokens: int, max_new_tokens: int) -> None:
        room = self.model.context_length
        if prompt_tokens + max_new_tokens > room:
            raise PromptTooLong(
                f"The prompt takes {prompt_tokens} tokens and {max_new_tokens} more were asked for; "
                f"the context of {self.model.name} holds {room}.",
                extra={"prompt_tokens": prompt_tokens, "max_new_tokens": max_new_tokens, "context_length": room},
            )

    def _generate(self, ids: Tensor, sampling: Sampling) -> list[int]:
        """The ids written after the prompt's ids [1, prompt]."""
        config = self._config(sampling)
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            generate: Any = self.model.model.generate
            output: Tensor = generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                tokenizer=self.model.tokenizer,
            )
        written: list[int] = answers_in(output, self.model.model, ids.shape[1])[0].tolist()
        return written

    def _config(self, sampling: Sampling) -> GenerationConfig:
        chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampling.temperature > 0,
            eos_token_id=self._end_tokens or None,
            pad_token_id=self.model.tokenizer.pad_token_id,
            stop_strings=list(sampling.stop) or None,
            **(chosen if sampling.temperature > 0 else {}),
        )


def _until(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
