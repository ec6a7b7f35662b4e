"""One HTTP call to a running service, and what to say when it does not go well."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import typer

from service.cli.output import failure

Url = Annotated[str, typer.Option("--url", envvar="ERRATA_URL", help="Where the service is.")]
DEFAULT_URL = "http://127.0.0.1:8000"

REFUSED, UNREACHABLE = 1, 3

_TIMEOUT = httpx.Timeout(600, connect=5)  # seconds; a long generation on a CPU takes minutes
_PAST_ANY_PROXY: dict[str, httpx.BaseTransport | None] = dict.fromkeys(
    ("all://127.0.0.1", "all://localhost", "all://[::1]")
)


def call(
    url: str,
    method: str,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    params: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    """Call the service and return the JSON of its answer, None when it is empty.

    Raises:
        typer.BadParameter: `url` is none.
        typer.Exit: The service refused (1) or was not reached (3); why has been printed.
    """
    try:
        with httpx.Client(base_url=url, timeout=_TIMEOUT, mounts=_PAST_ANY_PROXY) as client:
            response = client.request(method, path, json=body, params=given(params or {}), headers=headers)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise typer.BadParameter(f"{url!r} is not the address of a service.", param_hint="--url") from error
    except httpx.TransportError as error:
        raise failure(
            f"no answer from {url} ({type(error).__name__}).",
            "Start a service with `errata serve`, or say where one is with --url or ERRATA_URL.",
            UNREACHABLE,
        ) from None
    return _result(url, response)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The values that the caller gave: not None, not an empty list. What is left out, the service decides."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def _result(url: str, response: httpx.Response) -> Any:
    if response.is_success and not response.content:
        return None
    try:
        document = response.json()
    except ValueError:
        raise _not_errata(url, response) from None
    if response.is_success:
        return document
    if not isinstance(document, dict) or "detail" not in document:
        raise _not_errata(url, response)
    raise failure(str(document["detail"]), str(document.get("hint", "")), REFUSED)


def _not_errata(url: str, response: httpx.Response) -> typer.Exit:
    return failure(
        f"{url} answered {response.status_code}, and not as Errata does.", "Is another program there?", REFUSED
    )
