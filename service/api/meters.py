"""What is measured of the requests, in Prometheus's words; no label takes a value that a caller chooses.

HTTP names are those of its usual exporters (`http_requests_total`), our own those of the serving engines
(`errata:num_requests_running`).
"""

from __future__ import annotations

import time

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.guard import OPEN_PATHS
from service.domain.generations import Generation, GenerationRequest, Source
from service.settings import Settings

METRICS_PATH = "/metrics"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETAS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

_log = structlog.get_logger(__name__)


class Meters:
    """Counters and histograms of one application, and whether its log may hold prompts."""

    def __init__(self, *, log_prompts: bool) -> None:
        self.registry = CollectorRegistry()
        self._log_prompts = log_prompts
        request = ("method", "handler", "status")
        self._requests = Counter("http_requests", "Requests answered.", request, registry=self.registry)
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ("method", "handler"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "http_requests_in_progress", "Requests that are being answered.", registry=self.registry
        )
        self._decisions = Counter(
            "errata:scope_decisions", "Questions, by what the edits had to say.", ("outcome",), registry=self.registry
        )
        for outcome in ("in_scope", "out_of_scope", "no_edits"):
            self._decisions.labels(outcome)
        self._betas = Histogram(
            "errata:scope_beta",
            "The highest beta of each question.",
            buckets=_BETAS,
            registry=self.registry,
        )
        self._first_token = Histogram(
            "errata:time_to_first_token_seconds",
            "From a question to the first token that a model wrote.",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def request(self, method: str, handler: str, status: int, seconds: float) -> None:
        """Note a request that has been answered."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, handler, str(status)).inc()
        self._seconds.labels(known, handler).observe(seconds)

    def generation(self, request: GenerationRequest, generation: Generation) -> None:
        """Note what answered a question."""
        if request.edits:
            self._decisions.labels(_outcome(generation)).inc()
            if generation.beta is not None:
                self._betas.observe(generation.beta)
        if generation.first_seconds is not None:
            self._first_token.observe(generation.first_seconds)
        texts = _texts(request, generation) if self._log_prompts else {}
        _log.info(
            "answered",
            source=generation.source.value,
            edit_id=generation.edit_id,
            beta=generation.beta,
            version=generation.version,
            revision=generation.revision,
            **texts,
        )


class Metering:
    """Measures and logs every request. An open path is measured and not logged: it is asked for all the time.

    Args:
        meters: Where.
    """

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._meters.in_progress.track_inprogress():
            try:
                await self._app(scope, receive, send_noted)
            finally:
                seconds = time.perf_counter() - began
                self._meters.request(scope["method"], _handler(scope), status, seconds)
        if scope["path"] not in OPEN_PATHS and scope["path"] != METRICS_PATH:
            caller = scope["state"].get("caller")
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(seconds, 6),
                actor=None if caller is None else caller.actor,
            )


def install(app: FastAPI, settings: Settings) -> None:
    """Measure every request to `app`."""
    app.state.meters = Meters(log_prompts=settings.log_prompts)
    app.add_middleware(Metering, meters=app.state.meters)


def _handler(scope: Scope) -> str:
    """The template of the path; what leads nowhere, or was refused before, is one."""
    return getattr(scope.get("route"), "path", "none")


def _outcome(generation: Generation) -> str:
    if generation.beta is None:
        return "no_edits"
    return "in_scope" if generation.source is Source.EDIT else "out_of_scope"


def _texts(request: GenerationRequest, generation: Generation) -> dict[str, str | list[str]]:
    asked = request.prompt if request.prompt is not None else [turn.content for turn in request.messages]
    return {"prompt": asked, "text": generation.text}
