"""What monitoring reads: gauges of the caller's project, as OpenMetrics or as Prometheus's older text."""

from collections.abc import Iterator
from typing import Any, get_args

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import sparring
from sparring.contract.queue import QUEUES
from sparring.contract.states import State
from sparring.service.auth import Project
from sparring.service.context import Ctx
from sparring.storage.metrics import Counts, counts

router = APIRouter(tags=["health"])
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}, "description": "The metrics, as `Accept` asks"}
}


class Gauges(Collector):
    """One look, as metrics.

    Args:
        found: what the project has.
        alive: queues with a live worker; None while the queue cannot be reached.
    """

    def __init__(self, found: Counts, alive: set[str] | None) -> None:
        self._found, self._alive = found, alive

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """The families of metrics."""
        yield InfoMetricFamily("sparring_build", "What runs here.", value={"version": sparring.__version__})
        jobs = GaugeMetricFamily("sparring_jobs", "Jobs of the project by their state.", labels=["state"])
        for state in get_args(State):
            jobs.add_metric([state], self._found.jobs.get(state, 0))
        yield jobs
        yield GaugeMetricFamily("sparring_oldest_queued_seconds", "Age of the job that is queued longest.", value=self._found.oldest)
        yield GaugeMetricFamily("sparring_models", "Models of the project.", value=self._found.models)
        yield GaugeMetricFamily("sparring_datasets", "Datasets of the project.", value=self._found.datasets)
        yield GaugeMetricFamily("sparring_webhook_messages_waiting", "Messages that have not arrived yet.", value=self._found.waiting)
        yield GaugeMetricFamily("sparring_queue_up", "Whether the queue can be reached.", value=self._alive is not None)
        served = GaugeMetricFamily("sparring_queue_served", "Whether a live worker listens on a queue.", labels=["queue"])
        for device, queue in QUEUES.items():
            served.add_metric([device], queue in (self._alive or ()))
        yield served


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses=_TEXT)
def metrics(context: Ctx, project: Project, request: Request) -> Response:
    """Gauges of the key's project, as OpenMetrics where `Accept` asks for it."""
    registry = CollectorRegistry()
    registry.register(Gauges(counts(context.engine, project), context.liveness.queues()))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=content_type, headers={"Cache-Control": "no-store", "Vary": "Accept"})
