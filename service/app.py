"""The application, and the server that runs it."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypedDict

import structlog
import uvicorn
from fastapi import FastAPI

from service import __version__
from service.actions.services import Services
from service.api import problems
from service.api.router import routes
from service.errors import StartupError
from service.logs import log_to_stderr
from service.settings import Settings
from service.wiring import open_services

SUMMARY = "An edit service in front of a deployed language model."
DRAIN_SECONDS = 30
"""Longest wait, on a signal, for the requests being answered."""


class State(TypedDict):
    """What the lifespan hands to every request."""

    services: Services


def create_app(services: Services) -> FastAPI:
    """The ASGI application on open services; whoever opened them closes them."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield {"services": services}

    app = FastAPI(title="Errata", version=__version__, summary=SUMMARY, lifespan=lifespan, redirect_slashes=False)
    app.state.stopping = asyncio.Event()  # streams without an end of their own end when it is set
    app.include_router(routes())
    problems.install(app)
    return app


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; what is then being answered is finished first.

    `announce` is given one line, with the address, as soon as requests are answered.

    Raises:
        StartupError: The port is taken, or something that the service needs cannot be opened.
    """
    log_to_stderr(settings.log_level)
    # The port first: one that is taken should be known at once. Cancelled means that a signal came while starting.
    with _listen(settings.host, settings.port) as listener, suppress(asyncio.CancelledError):
        asyncio.run(_serve(settings, listener, announce))
    structlog.get_logger(__name__).info("stopped")


async def _serve(settings: Settings, listener: socket.socket, announce: Callable[[str], None]) -> None:
    starting = asyncio.current_task()
    assert starting is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, starting.cancel)
    async with open_services(settings) as services:
        server = _Server(services, lambda: announce(_greeting(services, listener)))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.handle_exit, number, None)
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, calling back once it accepts connections, and leaving signals to `_serve`, whose services outlive it."""

    def __init__(self, services: Services, started: Callable[[], None]) -> None:
        app = create_app(services)
        super().__init__(
            uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS)
        )
        self._started = started
        self._stopping: asyncio.Event = app.state.stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _greeting(services: Services, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    return f"Errata {__version__} serving {services.runtime.info().model} on http://{address}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # until this, a second server could bind as well; early clients wait for the model
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"Port {port} on {host} is in use by another program.",
                hint="Stop that program, or choose another port with ERRATA_PORT or --port.",
            ) from error
        raise StartupError(
            f"Cannot listen on {host}, port {port}: {error.strerror}.", hint="Check ERRATA_HOST and ERRATA_PORT."
        ) from error
    listener.set_inheritable(False)
    return listener
