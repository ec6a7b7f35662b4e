"""A server with LoRA adapters that come and go, which speaks to its callers as vLLM does and answers through PEFT."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from starlette.types import Receive, Scope, Send

from editors.model.generation import continue_greedily
from editors.model.loading import BaseModel
from tests.upstreams import MODEL, begin, body_of, reply


@dataclass
class AdapterServer:
    """Holds a base, and the adapters that it was asked to load.

    Attributes:
        loaded: Models that answer with an adapter, by its name.
        asked: The paths and bodies so far.
        lora: Whether it was started with --enable-lora.
        runtime: Whether adapters may be loaded while it runs.
    """

    base: BaseModel
    loaded: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lora: bool = True
    runtime: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix("/v1")
        if path == "/models":
            listed = [{"id": MODEL, "max_model_len": 77}, *({"id": name, "parent": MODEL} for name in self.loaded)]
            await reply(200, {"data": listed})({}, receive, send)
            return
        body = b""
        while (part := await receive()).get("more_body"):
            body += part["body"]
        question = json.loads(body + part["body"])
        self.asked.append((path, question))
        if path == "/completions":
            await self._answer(question, receive, send)
        elif path in {"/load_lora_adapter", "/unload_lora_adapter"} and self.runtime:
            status, words = (self._load if path.startswith("/load") else self._unload)(question)
            document: object = words.encode() if status == 200 else {"error": {"message": words, "code": status}}
            await reply(status, document)({}, receive, send)
        else:
            await reply(404, {"detail": "Not Found"})({}, receive, send)

    def loads(self) -> list[str]:
        """The names that it was asked to load, in order."""
        return [body["lora_name"] for path, body in self.asked if path == "/load_lora_adapter"]

    def _load(self, asked: dict[str, Any]) -> tuple[int, str]:
        name, folder = asked["lora_name"], Path(asked["lora_path"])
        if not self.lora:
            return 400, "LoRA is not enabled. Use --enable-lora to enable LoRA."
        if name in self.loaded:
            return 400, f"The lora adapter '{name}' has already been loaded."
        if not (folder / "adapter_config.json").is_file():
            return 404, f"Loading lora {name} failed: No adapter found for {folder}"
        self.loaded[name] = PeftModel.from_pretrained(copy.deepcopy(self.base.model), folder).eval()
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, asked: dict[str, Any]) -> tuple[int, str]:
        if self.loaded.pop(asked["lora_name"], None) is None:
            return 404, f"The lora adapter '{asked['lora_name']}' cannot be found."
        return 200, f"Success: LoRA adapter '{asked['lora_name']}' removed successfully."

    async def _answer(self, question: dict[str, Any], receive: Receive, send: Send) -> None:
        model = {MODEL: self.base.model, **self.loaded}.get(question["model"])
        if model is None:
            await reply(404, {"error": {"message": f"The model `{question['model']}` does not exist."}})(
                {}, receive, send
            )
            return
        ids = list(self.base.tokenizer(question["prompt"])["input_ids"])
        with torch.inference_mode():
            (written,) = continue_greedily(model, [ids], max_new_tokens=question["max_tokens"])
        text = self.base.tokenizer.decode(written, skip_special_tokens=True)
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(written)}
        whole = {"choices": [{"text": text, "finish_reason": "length"}], "usage": usage}
        if not question.get("stream"):
            await reply(200, whole)({}, receive, send)
            return
        await begin(send, "text/event-stream")
        await send(body_of(b"data: " + json.dumps(whole).encode() + b"\n\ndata: [DONE]\n\n"))
