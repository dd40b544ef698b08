"""Servers that play a resource's states for the command line."""

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip.schemas import ExportFormat, ExportPost
from tinyclip.schemas.exports import export_name

from tests.client.documents import (
    FILES,
    JSON,
    TIMES,
    dataset,
    dataset_report,
    dataset_version,
    job,
    page,
    reinforcement,
    sample,
    student,
    version,
)

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


def responding(path: str, document: Any, status: int = 200) -> Starlette:
    """Return a server with one document at one path."""

    async def respond(request: Request) -> Response:
        if isinstance(document, str):
            return Response(document, status)
        return JSONResponse(document, status)

    return Starlette(routes=[Route(path, respond, methods=["GET", "POST"])])


class JobServer:
    """Plays the states of a job, each as soon as the one before was read."""

    def __init__(self, *states: JSON, events: Sequence[JSON] = ()) -> None:
        self.states = list(states)
        self.events = events
        self.requests: list[tuple[str, str, JSON | None]] = []
        self.seen = threading.Semaphore(0)
        self.hangs = False
        """A long poll is held for ever."""

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/jobs", self.jobs, methods=["GET", "POST"]),
            Route("/v1/jobs/job_1", self.job),
            Route("/v1/jobs/job_1", self.change, methods=["PATCH"]),
            Route("/v1/jobs/job_1/events", self.events_page),
            Route("/v1/jobs/{rest:path}", self.change, methods=["GET", "POST", "DELETE"]),
        ])

    async def jobs(self, request: Request) -> Response:
        body = json.loads(await request.body()) if request.method == "POST" else None
        self.requests.append((request.method, str(request.url.query), body))
        if body is None:
            return JSONResponse(page(SUCCEEDED, job(id="job_0", state="queued"), next_page_token="more"))
        return JSONResponse(self.states[0], 201)

    async def job(self, request: Request) -> Response:
        tag = request.headers.get("if-none-match")
        place = 0 if tag is None else min(int(tag.strip('"')) + 1, len(self.states) - 1)
        self.seen.release()
        if tag is not None and self.hangs:
            await asyncio.Event().wait()
        return JSONResponse(self.states[place], headers={"ETag": f'"{place}"'})

    async def events_page(self, request: Request) -> Response:
        return JSONResponse(page(*self.events))

    async def change(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path, json.loads(await request.body() or b"null")))
        if request.method == "DELETE":
            return Response(status_code=204)
        return JSONResponse(job(state="cancelling"), 202)


class ResourceServer:
    """Base of servers with one resource: it is in the next of `states` at each request, and keeps what was sent."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.bodies: list[Any] = []
        self.message = ""
        self.refusal: JSON | None = None

    def document(self, state: str) -> JSON:
        raise NotImplementedError

    def next_state(self) -> str:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    async def get(self, request: Request) -> Response:
        return JSONResponse(self.document(self.next_state()))

    async def accept(self, request: Request, document: JSON, status: int = 202, **more: Any) -> Response:
        self.bodies.append({**await request.json(), **more})
        return JSONResponse(self.refusal, 422) if self.refusal else JSONResponse(document, status)


class EvaluationServer(ResourceServer):
    """An evaluation that has succeeded at the second request."""

    def __init__(self) -> None:
        super().__init__("running", "succeeded")
        self.warnings: list[str] = []
        self.by_size: JSON = {}

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/evaluations", self.create, methods=["POST"]),
            Route("/v1/evaluations/eval_1", self.get),
        ])

    def document(self, state: str) -> JSON:
        student = {**self.scores(0.5), **({"by_size": self.by_size} if self.by_size else {})}
        results = {"cars": {"student": student, "teacher": self.scores(0.75)}} if state == "succeeded" else {}
        return {
            "id": "eval_1", "model": "shapes@1", "against": "ViT-B-32/openai",
            "tasks": [{"name": "cars", "kind": "zero_shot", "shards": "/d"}], "holdout": 0.0, "state": state, "progress": 0.5,
            "message": self.message, "warnings": self.warnings, "results": results, "error": None,
            "ray_submission_id": "tc-evaluation-eval_1-a1", "finished_at": None, **TIMES,
        }  # fmt: skip

    @staticmethod
    def scores(top1: float) -> JSON:
        worst = {
            "class": "coupe", "row": 1, "samples": 8, "top1": 0.25,
            "mistaken_for": [{"class": "van", "row": 0, "share": 0.5}, {"class": "bus", "row": 2, "share": 0.25}],
        }
        return {
            "top1": top1, "top5": 0.9, "mean_per_class": top1, "per_class": [0.75, top1 / 2, None], "worst_classes": [worst],
            "samples": 16, "skipped": 0, "skipped_shards": 0, "ms_per_image": 1.234,
        }

    async def create(self, request: Request) -> Response:
        return await self.accept(request, self.document("queued"), 201, key=request.headers.get("idempotency-key"))


class ExportServer(ResourceServer):
    """Exports that have succeeded at the second request."""

    def __init__(self) -> None:
        super().__init__("running", "succeeded")
        self.names = ["onnx"]
        self.removed: list[str] = []

    def app(self) -> Starlette:
        base = "/v1/models/shapes/versions/{version}/exports"
        return Starlette(routes=[
            Route(base, self.create, methods=["POST"]),
            Route(base, self.list),
            Route(base + "/{name}", self.delete, methods=["DELETE"]),
        ])

    def document(self, state: str, name: str = "onnx") -> JSON:
        files = [{"path": "image.onnx", "bytes": 2_500_000, "sha256": "aa"}] if state == "succeeded" else []
        report = {"tokens": 7906, "of": 49408, "bytes_saved": 7968384, "texts": 9, "evaluation_texts": 934, "exact_share": 0.919}
        return {
            "reduction": report if "reduced" in name and files else None,
            "name": name, "model": "shapes@1", "format": name.partition("-")[0], "int8": name.endswith("int8"), "state": state,
            "progress": 0.5, "message": "all is well" if files else "", "files": files, "check": None, "error": None,
            "ray_submission_id": "tc-export-e-a1", "finished_at": None, **TIMES,
        }

    async def create(self, request: Request) -> Response:
        body = await request.json()
        options = ExportPost.model_validate(body).options
        self.names = [export_name(ExportFormat(format), options) for format in body["formats"]]
        more = {"version": request.path_params["version"], "key": request.headers.get("idempotency-key")}
        return await self.accept(request, page(*(self.document("queued", name) for name in self.names)), **more)

    async def list(self, request: Request) -> Response:
        state = self.next_state()
        return JSONResponse(page(*(self.document(state, name) for name in sorted([*self.names, "hf"]))))

    async def delete(self, request: Request) -> Response:
        self.removed.append(request.path_params["name"])
        return JSONResponse(self.document("deleting", request.path_params["name"]), 202)


class IndexServer(ResourceServer):
    """An index that is ready at the second request, and its items."""

    def __init__(self) -> None:
        super().__init__("building", "ready")
        self.updates = 0
        self.rejected: list[JSON] = []
        self.measured: JSON = {}

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/indexes/gallery", self.get),
            Route("/v1/indexes/gallery", self.put, methods=["PUT"]),
            Route("/v1/indexes/gallery/items", self.add, methods=["POST"]),
            Route("/v1/indexes/gallery/items/{id:path}", self.remove, methods=["DELETE"]),
        ])

    def document(self, state: str) -> JSON:
        return {
            "name": "gallery", "model": "shapes@1", "state": state, "count": 300, "progress": 0.5, "rejected": self.rejected,
            "updates": self.updates, "applied_updates": self.updates, **self.measured, **TIMES,
        }  # fmt: skip

    async def put(self, request: Request) -> Response:
        return await self.accept(request, self.document("building"))

    async def add(self, request: Request) -> Response:
        assert request.headers["idempotency-key"]
        self.updates += 1
        return await self.accept(request, self.document("updating"))

    async def remove(self, request: Request) -> Response:
        assert request.headers["idempotency-key"]
        self.updates += 1
        self.bodies.append(request.path_params["id"])
        return JSONResponse(self.document("updating"), 202)


class DatasetServer(ResourceServer):
    """A data set that is ready at the second request, its version and its report."""

    def __init__(self) -> None:
        super().__init__("registering", "ready")
        self.error: JSON | None = None
        self.removed: list[str] = []
        self.latest: int | None = None
        """Before the registration."""
        self.reinforcement_states = ["running", "succeeded"]

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/datasets", self.list),
            Route("/v1/datasets/pairs", self.get),
            Route("/v1/datasets/pairs", self.put, methods=["PUT"]),
            Route("/v1/datasets/pairs", self.delete, methods=["DELETE"]),
            Route("/v1/datasets/pairs/versions/{version}", self.version),
            Route("/v1/datasets/pairs/versions/{version}", self.delete, methods=["DELETE"]),
            Route("/v1/datasets/pairs/versions/{version}/report", self.report),
            Route("/v1/datasets/pairs/versions/{version}/samples", self.samples),
            Route("/v1/datasets/pairs/versions/{version}/reinforcements", self.reinforcements),
            Route("/v1/datasets/pairs/versions/{version}/reinforcements", self.reinforce, methods=["POST"]),
            Route("/v1/datasets/pairs/versions/1/reinforcements/reinf_1", self.reinforcement),
            Route("/v1/datasets/pairs/versions/1/reinforcements/reinf_1", self.delete_reinforcement, methods=["DELETE"]),
            Route("/v1/datasets/pairs/aliases/{alias}", self.alias, methods=["PUT"]),
            Route("/v1/datasets/pairs/aliases/{alias}", self.delete, methods=["DELETE"]),
        ])

    def document(self, state: str) -> JSON:
        return dataset(state=state, message=self.message, error=self.error)

    async def list(self, request: Request) -> Response:
        return JSONResponse(page(self.document("ready"), next_page_token="more"))

    async def put(self, request: Request) -> Response:
        return await self.accept(request, {**self.document("registering"), "latest": self.latest})

    async def delete(self, request: Request) -> Response:
        self.removed.append(request.url.path.removeprefix("/v1/datasets/"))
        return JSONResponse(self.document("deleting"), 202) if request.url.path.endswith("pairs") else Response(status_code=204)

    async def version(self, request: Request) -> Response:
        return JSONResponse(dataset_version())

    async def report(self, request: Request) -> Response:
        return JSONResponse(dataset_report())

    async def samples(self, request: Request) -> Response:
        unusable = sample(1, use="unusable", width=0, height=0, captions=[], problem="it has no txt")
        every = [sample(0), unusable, sample(2, use="held_out")]
        shown = [each for each in every if request.query_params.get("use", each["use"]) == each["use"]]
        return JSONResponse(page(*shown, next_page_token="more"))

    async def reinforce(self, request: Request) -> Response:
        assert request.headers["idempotency-key"]
        if (await request.json()).get("dry_run"):
            cost = {"views": 5500, "texts": 2100, "bytes": 12e6, "seconds": 75, "teacher_share": 0.61, "epochs_to_pay": 2.5}
            return await self.accept(request, cost, 200)
        return await self.accept(request, reinforcement(state="queued", views=0))

    async def reinforcement(self, request: Request) -> Response:
        return JSONResponse(reinforcement(state=self.next_reinforcement(), message=self.message))

    async def reinforcements(self, request: Request) -> Response:
        return JSONResponse(page(reinforcement(), next_page_token="more"))

    async def delete_reinforcement(self, request: Request) -> Response:
        return JSONResponse(reinforcement(state="deleting"), 202)

    def next_reinforcement(self) -> str:
        states = self.reinforcement_states
        return states.pop(0) if len(states) > 1 else states[0]

    async def alias(self, request: Request) -> Response:
        return await self.accept(request, self.document("ready"), 200, alias=request.path_params["alias"])


class DeploymentServer(ResourceServer):
    """A deployment that is ready at the second request, its queries and its model."""

    def __init__(self, *states: str) -> None:
        super().__init__(*(states or ("deploying", "ready")))
        self.url = ""

    def app(self) -> Starlette:
        return Starlette(routes=[
            Route("/v1/deployments/shapes", self.get),
            Route("/v1/deployments/shapes", self.put, methods=["PUT"]),
            Route("/v1/deployments/shapes", self.delete, methods=["DELETE"]),
            Route("/v1/deployments/shapes/traffic", self.traffic),
            Route("/v1/cluster", self.cluster),
            Route("/v1/deployments", self.list),
            Route("/v1/compare", self.compare),
            Route("/v1/models/shapes/versions/{version}", self.version),
            Route("/v1/models/shapes/versions/1/files/{path:path}", self.file),
            Route("/shapes/label-sets", self.label_sets),
            Route("/shapes/label-sets/{name}", self.label_set, methods=["GET", "PUT", "DELETE"]),
            Route("/shapes/{query}", self.query, methods=["POST"]),
            Route("/v1/indexes/gallery/items/{id}/thumbnail", self.thumbnail),
        ])

    async def thumbnail(self, request: Request) -> Response:
        if request.path_params["id"] == "0001":
            return Response(b"\xff\xd8\xff", media_type="image/jpeg")
        problem = {"title": "Not Found", "status": 404, "detail": "it was added without an image", "code": "no_thumbnail"}
        return JSONResponse(problem, 404, media_type="application/problem+json")

    def document(self, state: str) -> JSON:
        return {
            "name": "shapes", "model": "shapes@1", "state": state, "endpoint": f"{self.url}/shapes",
            "replicas": {"min": 1, "max": 1}, "engine": "torch", "message": self.message, **TIMES,
        }

    async def put(self, request: Request) -> Response:
        return await self.accept(request, self.document("deploying"))

    async def delete(self, request: Request) -> Response:
        return JSONResponse(self.document("deleting"), 202)

    async def list(self, request: Request) -> Response:
        return JSONResponse(page(self.document("ready")))

    async def traffic(self, request: Request) -> Response:
        times = {"count": 10, "mean_ms": 12.34, "p50_ms": 10.0, "p95_ms": 20.0, "p99_ms": 24.0}
        return JSONResponse({
            "deployment": "shapes", "measured_at": "2026-01-01T00:00:00Z", "queries": 10, "latency": times,
            "models": [{"model": "shapes@1", "requests": 9, "share": 0.9}],
            "routes": [{"route": "/zero-shot", **times}],
            "phases": [{"route": "/zero-shot", "phase": "encode", **times, "count": 9}],
            "batches": [{"kind": "images", "batches": 4, "mean": 2.5}],
            "cached_texts": {"hits": 3, "misses": 1, "hit_rate": 0.75}, "waiting": {"images": 2},
            "replicas": [{"id": "r1", "state": "RUNNING", "node_ip": "10.0.0.1"}], "unreachable": ["10.0.0.1:8080"],
        })

    async def cluster(self, request: Request) -> Response:
        return JSONResponse({
            "ray_version": "2.60.0", "dashboard_url": "http://127.0.0.1:8265", "others": 2,
            "nodes": [{
                "id": "n1", "hostname": "one", "ip": "10.0.0.1", "alive": True, "is_head": True, "cpu_percent": 54.9,
                "cpus": {"total": 4, "used": 1.5}, "gpus": {"total": 0},
                "memory": {"total": 16 << 30, "used": 3 << 30}, "object_store": {"total": 256 << 20, "used": 0},
            }],
            "workloads": [
                {"kind": "job", "name": "shapes", "id": "job_1", "submission_id": "tc-job_1-a1", "status": "RUNNING",
                 "driver_node": "n1", "nodes": ["n1"]},
                {"kind": "replica", "name": "shapes", "id": "shapes", "replica": "r1", "status": "RUNNING", "nodes": []},
            ],
        })

    async def version(self, request: Request) -> Response:
        return JSONResponse(version())

    async def compare(self, request: Request) -> Response:
        assert request.query_params["models"] == "shapes@1,shapes@2"
        scores, teacher = {"val": {"top1": 0.61, "top5": 0.9}}, {"val": {"top1": 0.65, "top5": 0.92}}
        model = version(evaluation=scores, teacher="ViT-B-32", teacher_evaluation=teacher)
        return JSONResponse({"models": [model, model | {"version": 2}]})

    async def file(self, request: Request) -> Response:
        return Response(FILES[request.path_params["path"]])

    async def label_sets(self, request: Request) -> Response:
        return JSONResponse(page({"name": "colours", "labels": 2, "templates": 1}))

    async def label_set(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.bodies.append({"deleted": request.path_params["name"]})
            return Response(status_code=204)
        if request.method == "PUT":
            self.bodies.append(await request.json())
        return JSONResponse({"name": "colours", "labels": ["red", "blue"], "templates": ["{}"]})

    async def query(self, request: Request) -> Response:
        body = await request.json()
        skips = body.get("on_error") == "skip"
        match request.path_params["query"]:
            case "zero-shot":
                scores = [{"label": "a red square", "score": 0.912}, {"label": "a blue disc", "score": 0.088}]
                results: list[Any] = [scores] * len(body["images"])
                errors = [{"pointer": "/images/1", "value": "AAEC", "message": "is empty"}] if skips else []
                answer = {"results": [*results[:-1], None] if skips else results, "errors": errors}
            case "embeddings" if skips:
                vectors = [{"index": 0, "embedding": None}, {"index": 1, "embedding": [0.6, -0.8]}]
                answer = {"data": vectors, "errors": [{"pointer": "/input/0", "value": "AAEC", "message": "is empty"}]}
            case "embeddings":
                answer = {"data": [{"index": 0, "embedding": [0.6, -0.8] * 4}]}
            case _:
                hit = {"id": "0001", "score": 0.31, "metadata": {"caption": "a red square", "size": 3}}
                answer = {"hits": [hit, {"id": "0002", "score": 0.2, "metadata": {}}]}
        return await self.accept(request, {**answer, "model": "shapes@1"}, 200)
