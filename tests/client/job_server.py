"""A server that plays the states of one job, for the command line to look at."""

import asyncio
import json
import threading

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.client.documents import JSON, job, page, student

HALF = student(2_500_000, 1_200_000, 310_000_000)
TEACHER = student(5_000_000, 2_400_000, 620_000_000)
SCORES = {
    "val": {"student": {"top1": 0.6123, "top5": 0.9}, "teacher": {"top1": 0.65, "top5": 0.92}},
    "captions": {
        "student": {"text_to_image_r1": 0.31, "text_to_image_r10": 0.7, "image_to_text_r1": 0.3},
        "teacher": {"text_to_image_r1": 0.33, "text_to_image_r10": 0.74, "image_to_text_r1": 0.35},
    },
}
SUCCEEDED = job(
    state="succeeded", attempt=1, model={"name": "shapes", "version": 1},
    stage={"state": "succeeded", "student": HALF, "evaluation": SCORES},
    progress={"step": 100, "fraction": 1.0},
)
RUNNING = {"state": "running", "attempt": 1}


def at_step(step: int) -> JSON:
    return job(
        **RUNNING,
        stage={"state": "running", "student": HALF, "metrics": {"last": {"loss": 2.0 - step / 100, "step": step}}},
        progress={"step": step, "fraction": step / 100, "pairs_per_second": 271.6, "eta_seconds": 100.0 - step},
    )


class Server:
    """Plays a job's states one after the other, each as soon as the one before was seen."""

    def __init__(self, *states: JSON, events: list[JSON] | None = None, holding: float = 0.0) -> None:
        self.states = list(states)
        self.holding = holding
        """Seconds before a long poll is answered: time for a restart to cut it off."""
        self.events = events or []
        self.asked: list[tuple[str, str, JSON | None]] = []
        self.seen = threading.Semaphore(0)

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/jobs", self.jobs, methods=["GET", "POST"]),
            Route("/v1/jobs/job_1", self.job),
            Route("/v1/jobs/job_1", self.other, methods=["PATCH"]),
            Route("/v1/jobs/job_1/events", self.events_page),
            Route("/v1/jobs/{rest:path}", self.other, methods=["GET", "POST", "DELETE"]),
        ])

    async def jobs(self, request: Request) -> Response:
        body = json.loads(await request.body()) if request.method == "POST" else None
        self.asked.append((request.method, str(request.url.query), body))
        if body is None:
            return JSONResponse(page(SUCCEEDED, job(id="job_0", state="queued"), next_page_token="more"))
        return JSONResponse(self.states[0], 201)

    async def job(self, request: Request) -> Response:
        tag = request.headers.get("if-none-match")
        place = 0 if tag is None else min(int(tag.strip('"')) + 1, len(self.states) - 1)
        self.seen.release()
        if tag is not None:
            await asyncio.sleep(self.holding)
        return JSONResponse(self.states[place], headers={"ETag": f'"{place}"'})

    async def events_page(self, request: Request) -> Response:
        return JSONResponse(page(*self.events))

    async def other(self, request: Request) -> Response:
        self.asked.append((request.method, request.url.path, json.loads(await request.body() or b"null")))
        if request.method == "DELETE":
            return Response(status_code=204)
        return JSONResponse(job(state="cancelling"), 202)
