"""A service with one of every resource, its answers, and a search in its index by the engine's own code."""

import asyncio
import hashlib
import json
from typing import Any

from tinyclip.artifacts.paths import model_version, reinforcement_document, reinforcement_folder
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import Scope
from tinyclip_server.orchestration.installation import bind
from tinyclip_workers import jobs
from tinyclip_workers.serving.replica.indexes import Indexes
from tinyclip_workers.serving.replica.label_sets import LabelSets

from tests.server.datasets.pairs import EMOJI, register
from tests.server.documents import spec
from tests.server.events import evaluation_finished, reinforcement_finished
from tests.server.exports.test_exports import write_files
from tests.server.guarded import ALL_BUT_METRICS, bearer, token
from tests.server.models.test_predictions import entry, predictions
from tests.server.reinforcements.test_reinforcements import REINFORCEMENTS, reinforced
from tests.server.searches.test_searches import SEARCHES, begun, created, searched
from tests.server.service import Service, Start
from tests.workers.index_jobs import unit_vectors, vector_items

MODEL, WEIGHTS = "emoji-half", b"weights"
VERSION = f"/v1/models/{MODEL}/versions/1"
EMBED_DIM = 32
GALLERY = "/v1/indexes/gallery"
GUARDED = {"auth": "tokens", "data_roots": ["/data", "s3://bucket"], "requests_per_minute": 100_000}
PATHS = (
    "/v1/me", "/v1/tokens", "/v1/jobs", "/v1/models", f"{VERSION}", f"{VERSION}/exports", "/v1/evaluations", "/v1/indexes",
    "/v1/deployments", "/v1/deployments/demo", "/v1/datasets", f"{EMOJI}/versions", f"{EMOJI}/versions/best/report",
    REINFORCEMENTS, SEARCHES, f"/v1/compare/predictions?models={MODEL}@1",
)  # fmt: skip


async def service_with_one_of_each(start: Start, **changes: Any) -> tuple[Service, str]:
    """Return a service and the secret of its token."""
    store = changes.pop("store", "files")
    service = await start(**GUARDED, **changes)
    await bind(service.app.state.services)
    secret = await token(service, *ALL_BUT_METRICS, Scope.READ, days=30)
    service.http.headers.update(bearer(secret))
    await _trained(service)
    await service.call("PUT", f"/v1/models/{MODEL}/aliases/best", {"version": 1})
    await _evaluated(service)
    await _exported(service)
    await register(service)
    await service.call("PUT", f"{EMOJI}/aliases/best", {"version": 1})
    await _reinforced(service)
    await indexed(service, store)
    await service.call("PUT", "/v1/deployments/demo", {"model": f"{MODEL}@best"}, status=202)
    await LabelSets("demo", ArtifactsStore(str(service.artifacts))).put("pets", ["cat", "dog"], ["a photo of a {}"])
    await _searched(service)
    await service.call("POST", "/v1/jobs", spec(name="waiting"), status=201, key="once")
    return service, secret


async def answers(service: Service, secret: str) -> dict[str, Any]:
    """Return what the API answers about every resource, the replayed response of a request, and the hits of a search."""
    service.http.headers.update(bearer(secret))
    found: dict[str, Any] = {path: await service.get(path) for path in PATHS}
    for job in found["/v1/jobs"]["items"]:
        for part in ("", "/events", "/metrics", "/logs", "/checkpoints"):
            found[f"{job['id']}{part}"] = await service.get(f"/v1/jobs/{job['id']}{part}")
    for search in found[SEARCHES]["items"]:
        for part in ("", "/events"):
            found[f"{search['id']}{part}"] = await service.get(f"{SEARCHES}/{search['id']}{part}")
    for name in ("open_clip_model.safetensors", "exports/onnx/image.onnx"):
        response = await service.http.get(f"{VERSION}/files/{name}")
        assert response.status_code == 200, (name, response.text)
        found[name] = response.content
    found["pets"] = await LabelSets("demo", ArtifactsStore(str(service.artifacts))).get("pets")
    found["replayed"] = await service.call("POST", "/v1/jobs", spec(name="waiting"), status=201, key="once")
    found["hits"] = hits(service)
    return found


def hits(service: Service) -> list[Any]:
    """Search the index as a deployment does."""
    reader = Indexes(str(service.artifacts)).get("gallery", f"{MODEL}@1")
    return [hit.model_dump() for hit in reader.nearest(unit_vectors(EMBED_DIM, seed=7), 20).hits]


async def indexed(service: Service, store: str) -> None:
    """Build an index without shards, and add items."""
    await service.call("PUT", GALLERY, {"model": f"{MODEL}@1", "source": None, "store": store}, status=202)
    await run_index_job(service)
    await added(service, 8)
    removed = await service.http.delete(f"{GALLERY}/items/v3")
    assert removed.status_code == 202
    await run_index_job(service)
    assert (await service.get(GALLERY))["count"] == 7


async def added(service: Service, count: int, first: int = 0) -> None:
    """Add items to the index and let the engine apply them."""
    items = vector_items(unit_vectors(count, EMBED_DIM, seed=first), first)
    await service.call("POST", f"{GALLERY}/items", {"items": items}, status=202)
    await run_index_job(service)


async def run_index_job(service: Service) -> None:
    """Submit the next job of the index, run it in this process, and read its events."""
    await service.reconcile("indexes")
    job = service.ray.submissions[-1].removeprefix("tc-index-gallery-")
    arguments = ["index", "--artifacts", str(service.artifacts), "--index", "gallery", "--job", job]
    assert await asyncio.to_thread(jobs.main, arguments) == 0
    await service.reconcile("indexes")
    assert (await service.get(GALLERY))["state"] == "ready"


async def _trained(service: Service) -> None:
    worker = await service.running(name=MODEL)
    worker.step(3, loss=1.5)
    folder = service.artifacts / model_version(MODEL, 1)
    folder.mkdir(parents=True)
    (folder / "open_clip_model.safetensors").write_bytes(WEIGHTS)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    document = {"files": [{"path": "open_clip_model.safetensors", "bytes": len(WEIGHTS), "sha256": digest}]}
    found = predictions([0, 0, 1, 1, 1])
    (folder / "predictions").mkdir()
    (folder / "predictions" / "pets.json.gz").write_bytes(found.pack())
    worker.succeed(**document, predictions={"pets": entry(found)})
    await service.tick()
    assert (await service.job(worker.job))["state"] == "succeeded"


async def _evaluated(service: Service) -> None:
    task = {"name": "cars", "kind": "zero_shot", "shards": "/data/wds_cars"}
    created = await service.call("POST", "/v1/evaluations", {"model": f"{MODEL}@1", "tasks": [task]}, status=201, key="eval")
    await service.reconcile("evaluations")
    service.emit(evaluation_finished("cars"))
    await service.reconcile("evaluations")
    assert (await service.get(f"/v1/evaluations/{created['id']}"))["state"] == "succeeded"


async def _reinforced(service: Service) -> None:
    id = await reinforced(service)
    path = reinforcement_document(reinforcement_folder("emoji", 1, id))
    (service.artifacts / path).write_text(json.dumps(reinforcement_finished("emoji", 1, id)["data"]))


async def _searched(service: Service) -> None:
    """Create a search that has a trial and ends, and one that measures."""
    id, _ = await begun(service, spec=searched("swept"))
    await service.call("POST", f"{SEARCHES}/{id}/cancel", status=202)
    await created(service, spec=searched("measured"), constraints=[{"latency_ms": {"max": 5}}])
    await service.reconcile("searches")


async def _exported(service: Service) -> None:
    [export] = (await service.call("POST", f"{VERSION}/exports", {"formats": ["onnx"]}, status=202))["items"]
    await service.reconcile("exports")
    service.emit(write_files(service, export["name"]), submission=export["ray_submission_id"])
    await service.reconcile("exports")
    assert json.loads((service.artifacts / model_version(MODEL, 1) / "exports/onnx/export.json").read_text())
