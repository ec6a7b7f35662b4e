"""One HTTP call to a running service, and what to say when it does not go well."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from service.cli.output import failure

Url = Annotated[str, typer.Option("--url", envvar="ERRATA_URL", help="Where the service is.")]
DEFAULT_URL = "http://127.0.0.1:8000"

REFUSED, UNREACHABLE = 1, 3

_TIMEOUT = httpx.Timeout(600, connect=5)  # seconds; a long generation on a CPU takes minutes
_READY_TIMEOUT = httpx.Timeout(5)
_PAST_ANY_PROXY = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))


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
    return _result(url, _send(url, method, path, json=body, params=given(params or {}), headers=headers))


def call_for_text(url: str, path: str, *, headers: dict[str, str] | None = None) -> str:
    """Get a document that is no JSON, such as a report.

    Raises:
        typer.BadParameter, typer.Exit: As `call`.
    """
    response = _send(url, "GET", path, headers=headers)
    if not response.is_success:
        raise _refusal(url, response)
    return response.text


@contextmanager
def opened(url: str, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
    """Call the service for an answer that is read bit by bit while the block runs.

    Raises:
        typer.BadParameter, typer.Exit: As `call`; also when the answer breaks off.
    """
    try:
        with _client(url, _TIMEOUT) as client, client.stream(method, path, **request) as response:
            if not response.is_success:
                response.read()
                raise _refusal(url, response)
            yield response
    except httpx.TransportError as error:
        raise _unanswered(url, error) from None


def events(url: str, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The server-sent events of a stream, each with its name and its JSON; ends with the stream.

    Raises:
        typer.BadParameter, typer.Exit: As `call`.
    """
    with opened(url, "GET", path) as response:
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def download(url: str, path: str, file: Path, *, params: dict[str, Any], code: int) -> None:
    """Write what the service sends to a file, whole or not at all.

    Raises:
        typer.BadParameter: As `call`.
        typer.Exit: As `call`; or with `code`, when the file cannot be written.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with opened(url, "GET", path, params=params) as response, part.open("wb") as out:
            for chunk in response.iter_bytes():
                out.write(chunk)
        part.replace(file)
    except OSError as error:
        raise failure(f"{file} cannot be written: {error.strerror}.", "Name a file that you may write.", code) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def asynchronous(url: str) -> httpx.AsyncClient:
    """A client that asks as many questions at once as it is given, for use within one event loop.

    Raises:
        typer.BadParameter: As `call`.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    try:
        return httpx.AsyncClient(
            base_url=url, timeout=_TIMEOUT, limits=limits, mounts=_PAST_ANY_PROXY, headers=_signed()
        )
    except httpx.InvalidURL as error:
        raise _no_address(url) from error


def not_ready(url: str, *, headers: dict[str, str] | None = None) -> str | None:
    """Why the service cannot take requests yet; None when it can.

    Raises:
        typer.BadParameter: `url` is none.
        typer.Exit: What answers there is not Errata, or will not be asked (1); why has been printed.
    """
    try:
        response = _exchange(url, "GET", "/readyz", headers=headers, timeout=_READY_TIMEOUT)
    except httpx.TransportError as error:
        return f"no answer from {url} ({type(error).__name__})."
    if response.is_server_error:
        return str((_problem(response) or {}).get("detail", f"{url} answered {response.status_code}."))
    _result(url, response)
    return None


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The values that the caller gave: not None, not an empty list. What is left out, the service decides."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def _send(url: str, method: str, path: str, **request: Any) -> httpx.Response:
    try:
        return _exchange(url, method, path, **request)
    except httpx.TransportError as error:
        raise _unanswered(url, error) from None


def _exchange(url: str, method: str, path: str, *, timeout: httpx.Timeout = _TIMEOUT, **request: Any) -> httpx.Response:
    with _client(url, timeout) as client:
        return client.request(method, path, **request)


@contextmanager
def _client(url: str, timeout: httpx.Timeout) -> Iterator[httpx.Client]:
    try:
        with httpx.Client(base_url=url, timeout=timeout, mounts=_PAST_ANY_PROXY, headers=_signed()) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise _no_address(url) from error


def _no_address(url: str) -> typer.BadParameter:
    return typer.BadParameter(f"{url!r} is not the address of a service.", param_hint="--url")


def _unanswered(url: str, error: httpx.TransportError) -> typer.Exit:
    return failure(
        f"no answer from {url} ({type(error).__name__}).",
        "Start a service with `errata serve`, or say where one is with --url or ERRATA_URL.",
        UNREACHABLE,
    )


def _signed() -> dict[str, str]:
    """The API key goes by the environment alone: other users can read a command line."""
    key = os.environ.get("ERRATA_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _result(url: str, response: httpx.Response) -> Any:
    if not response.is_success:
        raise _refusal(url, response)
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise _not_errata(url, response) from None


def _refusal(url: str, response: httpx.Response) -> typer.Exit:
    problem = _problem(response)
    if problem is None:
        return _not_errata(url, response)
    return refused(problem)


def refused(problem: dict[str, Any]) -> typer.Exit:
    """Say what a problem document says, the lines of a file included; raise what this returns to end the command."""
    ended = failure(str(problem["detail"]), str(problem.get("hint", "")), REFUSED)
    for error in problem.get("errors", ()):
        if "line" in error:
            typer.echo(f"line {error['line']}: {error['detail']}", err=True)
    return ended


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The problem document in an answer; None when there is none."""
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) and "detail" in document else None


def _not_errata(url: str, response: httpx.Response) -> typer.Exit:
    return failure(
        f"{url} answered {response.status_code}, and not as Errata does.", "Is another program there?", REFUSED
    )
