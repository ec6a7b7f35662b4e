"""The engine: answers prompts with a model, many at once. Knows nothing of edits."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from editors.model.generation import answers_in, continue_greedily, end_tokens
from editors.model.loading import BaseModel
from service.domain.generations import FinishReason, Message, Sampling, Usage
from service.errors import ErrataError, InternalError, NoChatTemplate, PromptTooLong
from service.runtime.batch import draw_of
from service.runtime.batcher import Batcher, Request
from service.runtime.completions import AtOnce, Completion, Pieces, Prompt
from service.runtime.line import Line, Place
from service.runtime.owner import Owner
from service.runtime.text import Text


class Engine(Protocol):
    """Answers prompts, each as if it were alone: greedily when the temperature is 0, else by its seed."""

    @property
    def problem(self) -> str | None:
        """Why it does not answer now; None when it does."""
        ...

    async def warm_up(self) -> None:
        """Make the first answer as quick as any."""
        ...

    @property
    def converses(self) -> bool:
        """Whether it can be asked with a conversation."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether its model is held in this process, where nobody changes it."""
        ...

    async def write(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Answer a prompt. A caller that is cancelled takes its request with it.

        Raises:
            PromptTooLong: Prompt and answer do not fit in the context.
            NoChatTemplate: It is a conversation, and the model has no chat template.
            QueueFull: Too many wait already.
            EngineFailed: The model fails; it is being brought back.
            ShuttingDown: The service is stopping.
        """
        ...

    async def stream(self, prompt: Prompt, sampling: Sampling) -> Pieces:
        """Answer a prompt piece by piece; the pieces together are what `write` gives.

        Raises:
            As `write`, and so may the pieces.
        """
        ...


class TransformersEngine:
    """Implements `Engine` on a frozen model of `transformers`, and works it directly for who is on its thread.

    Args:
        model: It is only read.
        owner: Its thread, which engines on views of one base share.
        line: In which requests wait.
    """

    def __init__(self, model: BaseModel, *, owner: Owner | None = None, line: Line | None = None) -> None:
        self.model = model
        self._owner = owner or Owner("model")
        self._line = line or Line()
        self._end_tokens = end_tokens(model.model)
        embeddings: Any = model.model.get_input_embeddings()
        self._vocabulary = int(embeddings.weight.shape[0])
        self._batcher = Batcher(model.model, model.tokenizer, self._owner, self._line)

    @property
    def problem(self) -> str | None:
        """Why it does not answer now; None when it does."""
        return self._batcher.problem

    async def warm_up(self) -> None:
        """Answer a first prompt."""
        await self.write("warm up", Sampling(max_new_tokens=2))

    @property
    def is_here(self) -> bool:
        """It is."""
        return True

    @property
    def converses(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self.model.tokenizer.chat_template)

    async def write(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Answer a prompt; see `Engine`."""
        answer = _Answer(self._line)
        try:
            if self.model.model.config.is_encoder_decoder:
                return await self._owner.run(self._alone, prompt, sampling)
            await self._owner.run(self._begin, prompt, sampling, answer, piecewise=False)
            return await answer.whole()
        finally:
            answer.close()

    async def stream(self, prompt: Prompt, sampling: Sampling) -> Pieces:
        """Answer a prompt piece by piece; see `Engine`."""
        if self.model.model.config.is_encoder_decoder:
            return AtOnce(await self.write(prompt, sampling))
        answer = _Answer(self._line)
        try:
            await self._owner.run(self._begin, prompt, sampling, answer, piecewise=True)
        except BaseException:
            answer.close()
            raise
        return answer

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the model's chat template writes it, ready for the model's turn.

        Raises:
            NoChatTemplate: The model has none.
        """
        if not self.converses:
            raise NoChatTemplate(
                f"{self.model.name} has no chat template: it reads a prompt, or one message of a user as a prompt."
            )
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
        most = self._most(ids.shape[1], sampling)
        written = self._generate(ids.to(self.model.device), replace(sampling, max_new_tokens=most))
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

    def _alone(self, prompt: Prompt, sampling: Sampling) -> Completion:
        text, rendered = self._text_of(prompt)
        return self.complete(text, sampling, rendered=rendered)

    def _begin(self, prompt: Prompt, sampling: Sampling, answer: _Answer, *, piecewise: bool) -> None:
        """Read a prompt and have it answered."""
        text, rendered = self._text_of(prompt)
        ids = list(self.model.tokenizer(text, add_special_tokens=not rendered)["input_ids"])
        ids = ids or [self.model.tokenizer.bos_token_id or 0]  # a text of nothing, to its normaliser
        if max(ids) >= self._vocabulary:  # it would fail in the batch, and take the others along
            raise InternalError(f"The tokenizer of {self.model.name} has tokens that the model has not.")
        most = self._most(len(ids), sampling)
        needs_text = piecewise or bool(sampling.stop)
        request = Request(
            ids=ids,
            most=most,
            draw=draw_of(sampling, _seed(sampling)),
            text=Text(self.model.tokenizer, sampling.stop) if needs_text else None,
            piecewise=piecewise,
            tell=answer.tell,
            place=answer.place,
        )
        self._batcher.add(request)

    def _text_of(self, prompt: Prompt) -> tuple[str, bool]:
        """The text to continue, and whether its special tokens are in place."""
        return (prompt, False) if isinstance(prompt, str) else (self.render(prompt), True)

    def _completion(self, prompt_tokens: int, written: list[int], stop: tuple[str, ...]) -> Completion:
        ended = bool(written) and written[-1] in self._end_tokens
        text, stopped = _until(str(self.model.tokenizer.decode(written, skip_special_tokens=True)), stop)
        return Completion(
            text=text,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(written)),
            finish_reason=FinishReason.STOP if ended or stopped else FinishReason.LENGTH,
        )

    def _most(self, prompt_tokens: int, sampling: Sampling) -> int:
        """How many tokens may be written."""
        self._refuse_overflow(prompt_tokens, 1 if sampling.fitted else sampling.max_new_tokens)
        return min(sampling.max_new_tokens, self.model.context_length - prompt_tokens)

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
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(_seed(sampling))
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


class _Answer:
    """One request, as its event loop sees it: implements `Pieces`."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[str | Completion | ErrataError] = asyncio.Queue()
        self.place: Place = line.enter()

    def tell(self, news: str | Completion | ErrataError) -> None:
        """Take news of it, from the model's thread."""
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits
            self._loop.call_soon_threadsafe(self._take, news)

    async def whole(self) -> Completion:
        """All of it.

        Raises:
            EngineFailed: The model fails.
            ShuttingDown: The service is stopping.
        """
        async for news in self:
            if isinstance(news, Completion):
                return news
        raise AssertionError("an answer ends with its completion")

    async def __aiter__(self) -> AsyncIterator[str | Completion]:
        while True:
            news = await self._news.get()
            if isinstance(news, ErrataError):
                raise news
            yield news
            if isinstance(news, Completion):
                return

    def close(self) -> None:
        """Give up what has not been written yet."""
        self.place.gone = True
        self._line.leave(self.place)

    def _take(self, news: str | Completion | ErrataError) -> None:
        if not isinstance(news, str):
            self._line.leave(self.place)
        self._news.put_nowait(news)


def _seed(sampling: Sampling) -> int:
    return secrets.randbits(63) if sampling.seed is None else sampling.seed


def _until(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
