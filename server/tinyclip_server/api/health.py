"""Whether the process lives, whether it can serve, and its numbers for Prometheus."""

import asyncio
import logging

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from tinyclip_server.api.readiness import Readiness
from tinyclip_server.http import metrics as numbers
from tinyclip_server.http.services import Uses
from tinyclip_server.problems import Unavailable

logger = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

SCRAPE_SECONDS = 5.0
"""For the database's part of a scrape; Prometheus gives up on the whole after 10 s."""


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request) -> dict[str, str]:
    """`ready`, or `degraded` where artifacts or Ray have gone; 503 saying why where requests should go elsewhere."""
    readiness: Readiness = request.app.state.readiness
    look = await readiness.look()
    if look.missing:
        raise Unavailable(f"not ready: {'; '.join(look.missing)}", code="not_ready", retry_after=1)
    parts = {part: look.complaints.get(part, "ok") for part in ("database", "scheduler", "artifacts", "ray")}
    return {"status": look.status, **parts}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, services: Uses) -> Response:
    """Prometheus text. Without the database it tells the rest."""
    readiness: Readiness = request.app.state.readiness
    await readiness.look(at_most_s_old=10.0)
    services.metrics.refresh()
    text = generate_latest(services.metrics.registry)
    try:
        async with asyncio.timeout(SCRAPE_SECONDS), services.db.read() as session:
            text += generate_latest(await numbers.of_database(session))
    except (SQLAlchemyError, OSError) as error:
        logger.warning("no numbers from the database: %s", error or type(error).__name__)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
