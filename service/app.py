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
from service.allocation import give_back_large_blocks
from service.api import asking, meters, problems
from service.api.body_limit import BodyLimit
from service.api.guard import Guard
from service.api.rate_limits import RateLimiter, RateLimits
from service.api.request_ids import RequestIds
from service.api.router import routes
from service.errors import StartupError
from service.logs import log_to_stderr
from service.settings import Settings
from service.wiring import open_services

SUMMARY = "An edit service in front of a deployed language model."
DRAIN_SECONDS = 30
"""Longest wait, on a signal, for the requests being answered."""
KEEP_ALIVE_SECONDS = 180
"""An idle connection is the caller's to close, and proxies keep theirs for up to two minutes: a request that is sent on
one while the server closes it is lost."""


class State(TypedDict):
    """What the lifespan hands to every request."""

    services: Services


def create_app(services: Services, settings: Settings | None = None) -> FastAPI:
    """The ASGI application on open services; whoever opened them closes them.

    Raises:
        StartupError: Redis cannot be used at the address given.
    """
    settings = settings or Settings()

    limiter = RateLimiter(settings.rate_limits, settings.redis_url) if settings.rate_limits else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield {"services": services}
        if limiter is not None:
            await limiter.close()

    app = FastAPI(title="Errata", version=__version__, summary=SUMMARY, lifespan=lifespan, redirect_slashes=False)
    app.state.stopping = asyncio.Event()  # streams without an end of their own end when it is set
    app.include_router(routes())
    problems.install(app)
    asking.install(app)
    _surround(app, settings, limiter)
    return app


def _surround(app: FastAPI, settings: Settings, limiter: RateLimiter | None) -> None:
    """The layers around the doors, from the innermost to the outermost."""
    app.add_middleware(BodyLimit, most=settings.max_body_bytes)
    if limiter is not None:
        app.add_middleware(RateLimits, limiter=limiter)
    app.add_middleware(Guard)
    meters.install(app, settings)
    app.add_middleware(RequestIds)


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; what is then being answered is finished first.

    `announce` is given one line, with the address, as soon as requests are answered.

    Raises:
        StartupError: The port is taken, or something that the service needs cannot be opened.
    """
    log_to_stderr(settings.log_level)
    give_back_large_blocks()
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
        server = _Server(services, settings, lambda: announce(_greeting(services, listener)))
        loop.add_signal_handler(signal.SIGINT, server.handle_exit, signal.SIGINT, None)
        loop.add_signal_handler(signal.SIGTERM, server.drain, settings.drain_seconds)
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, calling back once it accepts connections, and leaving signals to `_serve`, whose services outlive it."""

    def __init__(self, services: Services, settings: Settings, started: Callable[[], None]) -> None:
        app = create_app(services, settings)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._started = started
        self._stopping: asyncio.Event = app.state.stopping

    def drain(self, seconds: float) -> None:
        """Say that this replica is not ready, and stop after so long; a second signal stops at once."""
        wait = 0.0 if self._stopping.is_set() else seconds
        self._stopping.set()
        asyncio.get_running_loop().call_later(wait, self.handle_exit, signal.SIGTERM, None)

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
    # Named as TCP, or asyncio leaves Nagle's algorithm on: the second packet of an answer waits 40 ms for the first.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
