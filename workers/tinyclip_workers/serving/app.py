"""The Serve application: one ingress deployment that takes HTTP and gathers batches.

All in one deployment because a second hop halves the rate. Serve reads this module once to see what to deploy, in a process
that answers nothing, and again in each replica: so torch and open_clip, seconds to import, are left to the replicas.
"""

from typing import TYPE_CHECKING, Any, cast

from fastapi import Depends, FastAPI, Request
from ray import serve
from starlette.responses import JSONResponse, Response

from tinyclip_workers.serving.access import Access
from tinyclip_workers.serving.groups import count
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import answer_problems
from tinyclip_workers.serving.queries import read_embeddings, read_search, read_zero_shot

if TYPE_CHECKING:
    from tinyclip_workers.images import Pixels
    from tinyclip_workers.serving.engine import Matrix



async def _expect_access(request: Request) -> None:
    """Before any route: the replica's list of tokens has the caller's."""
    student: Any = serve.get_replica_context().servable_object
    await student.access.expect(request)


app = FastAPI(title="TinyCLIP student", openapi_url=None, dependencies=[Depends(_expect_access)])
answer_problems(app)


@serve.deployment(name="Student", max_ongoing_requests=64, max_queued_requests=128)
@serve.ingress(app)
class Student:
    """One replica."""

    def __init__(self, options: dict[str, Any]) -> None:
        from tinyclip_workers.serving.replica import Replica  # see above

        self._options = ServingOptions.model_validate(options)
        self.access = Access(self._options)
        self._replica = Replica(self._options, self._image_batch, self._text_batch)
        batches: list[tuple[Any, int]] = [
            (self._image_batch, self._options.max_batch_images),
            (self._text_batch, self._options.max_batch_texts),
        ]
        for batch, size in batches:
            batch.set_max_batch_size(size)
            batch.set_batch_wait_timeout_s(self._options.batch_wait_s)

    @app.post("/zero-shot")
    async def zero_shot(self, request: Request) -> Response:
        query = await read_zero_shot(request, self._options)
        answer = await self._replica.service.zero_shot(query)
        if query.hugging_face:
            return JSONResponse([score.model_dump() for score in answer.results[0] or []])
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/embeddings")
    @app.post("/v1/embeddings")
    async def embeddings(self, request: Request) -> Response:
        return JSONResponse(await self._replica.service.embeddings(await read_embeddings(request, self._options)))

    @app.post("/search")
    async def search(self, request: Request) -> Response:
        answer = await self._replica.service.search(await read_search(request, self._options))
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/healthz")
    async def healthz(self) -> dict[str, Any]:
        engine = self._replica.engine
        return {
            "status": "ok",
            "deployment": self._options.name,
            "model": self._options.model,
            "engine": engine.name,
            "embed_dim": engine.embed_dim,
            "engine_report": engine.report.model_dump(mode="json"),
        }

    @serve.batch(batch_size_fn=count)
    async def _image_batch(self, groups: "list[Pixels]") -> "list[Matrix]":
        return await self._replica.encode_images(groups)

    @serve.batch(batch_size_fn=count)
    async def _text_batch(self, groups: list[list[str]]) -> "list[Matrix]":
        return await self._replica.encode_texts(groups)


def application(args: dict[str, Any]) -> serve.Application:
    """Raises pydantic.ValidationError for bad args."""
    options = ServingOptions.model_validate(args)
    bound: serve.Application = cast(Any, Student).bind(options.model_dump())
    return bound
