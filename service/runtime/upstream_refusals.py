"""What the server that holds the base model says when it gives no answer, in the service's own errors.

Its words are passed on only to the caller whom they concern: a failure of the server is logged, and those words might
quote a prompt.
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
from pydantic_core import from_json

from service.errors import (
    ErrataError,
    NoChatTemplate,
    PromptTooLong,
    UpstreamBusy,
    UpstreamDeclined,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)

MOST_BYTES = 64 << 10
"""Of a refusal, that are read."""

_MOST_CHARACTERS = 400
_LONGEST_WAIT = 3600
_NO_ROOM = re.compile(
    r"context[ _](length|size|window)|maximum (model|sequence) length|(prompt|input)\S* (is |are )?too long"
    r"|prompt.too.long|must be <=",
    re.IGNORECASE,
)
"""How vLLM, TGI, SGLang, llama.cpp, hosted models and Errata say that prompt and answer do not fit."""
_NO_TEMPLATE = re.compile(r"chat.template", re.IGNORECASE)
_TOO_MANY = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}


def refusal(response: httpx.Response, body: bytes, *, model: str, key: str) -> ErrataError:
    """The error that a status other than 200 stands for.

    Args:
        response: Its status and headers are read.
        body: As much of its body as counts.
        model: The name that was asked for.
        key: Is never repeated, whatever the server says.
    """
    status = response.status_code
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return UpstreamRefused(
            f"The base model's server does not take our key: it answers {status}.",
            hint="The operator checks ERRATA_BASE_API_KEY.",
        )
    if status == HTTPStatus.NOT_FOUND:
        return UpstreamRefused(
            f"The base model's server answers 404 at {response.request.url.path}, for the model {model!r}.",
            hint="The operator checks ERRATA_BASE_MODEL and ERRATA_BASE_URL. A model that only converses takes "
            "`messages`.",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return UpstreamBusy("The base model's server takes no more requests now.", retry_after=_wait(response))
    if status == HTTPStatus.REQUEST_TIMEOUT or status == HTTPStatus.GATEWAY_TIMEOUT:
        return UpstreamTimeout(f"The base model's server answers {status}.", retry_after=_wait(response))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UpstreamUnavailable(f"The base model's server answers {status}.", retry_after=_wait(response))
    if status < HTTPStatus.BAD_REQUEST:
        return UpstreamInvalid(f"The base model's server answers {status}, which is no answer.")
    return _declined(status, _words(body).replace(key, "***") if key else _words(body))


def _declined(status: int, words: str) -> ErrataError:
    said = f"The base model's server answers {status}: {words[:_MOST_CHARACTERS] or 'it says no more'}"
    if status in _TOO_MANY and _NO_ROOM.search(words):
        return PromptTooLong(said)
    if _NO_TEMPLATE.search(words):
        return NoChatTemplate(said)
    return UpstreamDeclined(said)


def _words(body: bytes) -> str:
    """What a refusal says, as the different servers write it down."""
    try:
        found: Any = from_json(body)
    except ValueError:
        return ""
    for name in ("error", "detail", "message"):
        while isinstance(found, dict) and name in found:
            found = found[name]
    return " ".join(found.split()) if isinstance(found, str) else ""


def _wait(response: httpx.Response) -> int:
    """Seconds to wait, as `Retry-After` gives them or the moment that they end; 1 where it gives none."""
    written = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(written) if written[:1].isdigit() else parsedate_to_datetime(written).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        seconds = 1
    return int(min(max(seconds, 1), _LONGEST_WAIT))
