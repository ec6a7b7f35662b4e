"""The application, and the server that runs it."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypedDict

import structlog
import uvicorn
from fastapi import FastAPI

from service import __version__
from service.actions.services import Services
from service.api import problems
from service.api.router import routes
from service.errors import StartupError
from service.settings import Settings
from service.wiring import open_services

SUMMARY = "An edit service in front of a deployed language model."


class State(TypedDict):
    """What the lifespan hands to every request."""

    services: Services


def create_app(services: Services) -> FastAPI:
    """The ASGI application on open services; whoever opened them closes them."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield {"services": services}

    app = FastAPI(title="Errata", version=__version__, summary=SUMMARY, lifespan=lifespan)
    app.include_router(routes())
    problems.install(app)
    return app


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; what is then being answered is finished first.

    `announce` is given one line, with the address, as soon as requests are answered.

    Raises:
        StartupError: The port is taken, or something that the service needs cannot be opened.
    """
    _log_to_stderr(settings.log_level)
    with _listen(settings.host, settings.port) as listener:  # first of all: a taken port should be known at once
        try:
            asyncio.run(_serve(settings, listener, announce))
        except (KeyboardInterrupt, asyncio.CancelledError):
            structlog.get_logger(__name__).info("stopped")


async def _serve(settings: Settings, listener: socket.socket, announce: Callable[[str], None]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with open_services(settings) as services:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        line = f"Errata {__version__} serving {services.runtime.info().model} on {url}"
        config = uvicorn.Config(create_app(services), log_config=None, access_log=False, timeout_graceful_shutdown=30)
        await _AnnouncingServer(config, lambda: announce(line)).serve(sockets=[listener])


class _AnnouncingServer(uvicorn.Server):
    """Calls back once it accepts connections."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()


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


def _log_to_stderr(level: str) -> None:
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(stream=sys.stderr, level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
