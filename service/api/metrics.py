"""The door of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from service.actions import health
from service.actions.health import Vitals
from service.api.bodies import Door, JsonRoute
from service.api.guard import needs
from service.api.meters import METRICS_PATH, Meters
from service.api.problem_documents import problem_responses
from service.domain.answers import Lookups

router = APIRouter(route_class=JsonRoute, tags=["health"])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus's text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@router.get(METRICS_PATH, summary="What is measured", response_class=Response, responses=_TEXT | problem_responses())
@needs(None)
async def metrics(request: Request, services: Door) -> Response:
    """For Prometheus. Without its database the service leaves out what only that knows."""
    meters: Meters = request.app.state.meters
    page = generate_latest(meters.registry) + generate_latest(_gauges(await health.vitals(services)))
    return Response(page, media_type=CONTENT_TYPE_LATEST)


def _gauges(vitals: Vitals) -> CollectorRegistry:
    """What is true now, in a registry of this one answer."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"errata:{name}", text, registry=registry).set(value)

    gauge("num_requests_running", "Requests that the model is answering.", vitals.backlog.running)
    gauge("num_requests_waiting", "Requests that wait for the model.", vitals.backlog.waiting)
    gauge("revision", "The newest change in force here.", vitals.info.revision)
    gauge("memory_edits", "Edits in the live memory.", vitals.info.edits)
    gauge("index_rows", "Texts in the live memory's index.", vitals.index_rows)
    gauge("database_up", "Whether the database answers.", float(vitals.census is not None))
    registry.register(_Lookups(vitals.lookups))
    if vitals.census is not None:
        gauge("database_revision", "The newest change.", vitals.census.revision)
        gauge("revision_lag", "Changes not yet in force here.", vitals.census.revision - vitals.info.revision)
        gauge("database_rows", "Texts of the edits in force, in the database.", vitals.database_rows)
        edits = Gauge("errata:edits", "Edits in the database.", ("state",), registry=registry)
        for state, count in vitals.census.edits.items():
            edits.labels(state.value).set(count)
    return registry


class _Lookups(Collector):
    """Counts that are kept elsewhere."""

    def __init__(self, lookups: Sequence[Lookups]) -> None:
        self._lookups = lookups

    def collect(self) -> Iterator[CounterMetricFamily]:
        """By tier and outcome."""
        counter = CounterMetricFamily(
            "errata:answer_cache_lookups", "Answers looked for in the cache.", labels=("tier", "outcome")
        )
        for tier in self._lookups:
            for outcome, count in (("hit", tier.hits), ("miss", tier.misses), ("error", tier.errors)):
                counter.add_metric((tier.tier, outcome), count)
        yield counter
