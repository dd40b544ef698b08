"""Liveness and readiness probes, and metrics for Prometheus."""

import asyncio
import logging

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from tinyclip_server.api.readiness import Readiness
from tinyclip_server.http import metrics as http_metrics
from tinyclip_server.http.services import ServicesDep
from tinyclip_server.problems import Unavailable

logger = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

READY_SECONDS = 2.0
"""Age up to which the last report of the dependencies answers `/readyz`."""
SCRAPE_SECONDS = 5.0
"""Time for the database's part of a scrape; Prometheus ends the whole scrape after 10 s."""


@router.get("/livez")
async def live() -> dict[str, str]:
    """Report that the process answers requests."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request, services: ServicesDep) -> dict[str, str]:
    """Report `ready`, or `degraded` if artifacts or Ray are unavailable; 503 if the server cannot serve.

    The state of each dependency and the reasons are shown to callers with a token, and to all where none is required.
    """
    readiness: Readiness = request.app.state.readiness
    report = await readiness.check(max_age_s=READY_SECONDS)
    known = services.settings.auth == "none" or hasattr(request.state, "caller")
    if report.missing:
        reasons = "; ".join(report.missing) if known else "send a token to see the reasons, or read the server's log"
        raise Unavailable(f"not ready: {reasons}", code="not_ready", retry_after=1)
    if not known:
        return {"status": report.status}
    parts = {part: report.problems.get(part, "ok") for part in ("database", "scheduler", "artifacts", "ray")}
    return {"status": report.status, **parts}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, services: ServicesDep) -> Response:
    """Get metrics in the text format of Prometheus. Without the database, only those of the process."""
    readiness: Readiness = request.app.state.readiness
    await readiness.check(max_age_s=10.0)
    services.metrics.refresh_lag()
    text = generate_latest(services.metrics.registry)
    try:
        async with asyncio.timeout(SCRAPE_SECONDS), services.db.read() as session:
            text += generate_latest(await http_metrics.database_metrics(session))
    except (SQLAlchemyError, OSError) as error:
        logger.warning("no metrics of the database: %s", error or type(error).__name__)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
