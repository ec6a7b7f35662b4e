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


def refusal(response: httpx.Response, body: bytes, *, model: str | None, key: str) -> ErrataError:
    """The error that a status other than 200 stands for.

    Args:
        response: Its status and headers are read.
        body: As much of its body as counts.
        model: The name that was asked for; None where no question was asked, so that no words can quote one.
        key: Is never repeated, whatever the server says.
    """
    status = response.status_code
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return UpstreamRefused(
            f"The base model's server does not take our key: it answers {status}.",
            hint="The operator checks ERRATA_BASE_API_KEY.",
        )
    if status == HTTPStatus.NOT_FOUND:
        about = _words(body, key)[0][:_MOST_CHARACTERS] if model is None else f"for the model {model!r}"
        return UpstreamRefused(
            f"The base model's server answers 404 at {response.request.url.path}, {about or 'and says no more'}.",
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
    return _declined(status, *_words(body, key))


def _declined(status: int, words: str, code: str) -> ErrataError:
    said = f"The base model's server answers {status}: {words[:_MOST_CHARACTERS] or 'it says no more'}"
    meant = f"{code} {words}"
    if status in _TOO_MANY and _NO_ROOM.search(meant):
        return PromptTooLong(said)
    if _NO_TEMPLATE.search(meant):
        return NoChatTemplate(said)
    return UpstreamDeclined(said)


def _words(body: bytes, key: str) -> tuple[str, str]:
    """What a refusal says, and its code if it has one, as the different servers write them down; never the key."""
    try:
        found: Any = from_json(body)
    except ValueError:
        return "", ""
    code = ""
    for name in ("error", "detail", "message"):
        if isinstance(found, dict):
            code = str(found.get("code") or code)
            found = found.get(name, found)
    words = " ".join(found.split()) if isinstance(found, str) else ""
    return words.replace(key, "***") if key else words, code


def _wait(response: httpx.Response) -> int:
    """Seconds to wait, as `Retry-After` gives them or the moment that they end; 1 where it gives none."""
    written = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(written) if written[:1].isdigit() else parsedate_to_datetime(written).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        seconds = 1
    return int(min(max(seconds, 1), _LONGEST_WAIT))
