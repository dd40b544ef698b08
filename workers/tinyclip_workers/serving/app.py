"""The Serve application: one ingress deployment that takes HTTP, gathers batches and runs the engine.

All in one deployment because a second hop halves the rate. User code runs on the replica's event loop, so whatever computes
is sent to threads: one for the engine, a few for decoding and searching.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
import torch
from fastapi import FastAPI, Request
from ray import serve
from starlette.responses import JSONResponse, Response
from torch import Tensor

from tinyclip_workers.serving.engine import Matrix, load_engine
from tinyclip_workers.serving.groups import count, cut, split
from tinyclip_workers.serving.options import ServingOptions
from tinyclip_workers.serving.problems import answer_problems
from tinyclip_workers.serving.queries import read_embeddings, read_search, read_zero_shot
from tinyclip_workers.serving.service import StudentService

T = TypeVar("T")

app = FastAPI(title="TinyCLIP student", openapi_url=None)
answer_problems(app)


@serve.deployment(name="Student", max_ongoing_requests=64, max_queued_requests=128)
@serve.ingress(app)
class Student:
    """One replica."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = ServingOptions.model_validate(options)
        torch.set_num_threads(self._options.threads)
        self._engine = load_engine(self._options.model_uri, self._options.engine)
        self._compute = ThreadPoolExecutor(1, "engine")
        batches: list[tuple[Any, int]] = [
            (self._image_batch, self._options.max_batch_images),
            (self._text_batch, self._options.max_batch_texts),
        ]
        for batch, size in batches:
            batch.set_max_batch_size(size)
            batch.set_batch_wait_timeout_s(self._options.batch_wait_s)
        decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "decode")
        self._service = StudentService(self._options, self._engine, self, decoders)

    @app.post("/zero-shot")
    async def zero_shot(self, request: Request) -> Response:
        query = await read_zero_shot(request, self._options)
        answer = await self._service.zero_shot(query)
        if query.hugging_face:
            return JSONResponse([score.model_dump() for score in answer.results[0] or []])
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.post("/embeddings")
    @app.post("/v1/embeddings")
    async def embeddings(self, request: Request) -> Response:
        return JSONResponse(await self._service.embeddings(await read_embeddings(request, self._options)))

    @app.post("/search")
    async def search(self, request: Request) -> Response:
        answer = await self._service.search(await read_search(request, self._options))
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/healthz")
    async def healthz(self) -> dict[str, Any]:
        return {
            "status": "ok", "deployment": self._options.name, "model": self._options.model,
            "engine": self._engine.name, "embed_dim": self._engine.embed_dim,
        }

    async def images(self, images: Sequence[Tensor]) -> Matrix:
        """(images, E), computed together with those of other requests."""
        groups = [torch.stack(group) for group in cut(images, self._options.max_batch_images)]
        return np.concatenate(await asyncio.gather(*map(self._image_batch, groups)))

    async def texts(self, texts: Sequence[str]) -> Matrix:
        """(texts, E), computed together with those of other requests."""
        groups = cut(texts, self._options.max_batch_texts)
        return np.concatenate(await asyncio.gather(*map(self._text_batch, groups)))

    @serve.batch(batch_size_fn=count)
    async def _image_batch(self, groups: list[Tensor]) -> list[Matrix]:
        return split(await self._run(lambda: self._engine.encode_image(torch.cat(groups))), groups)

    @serve.batch(batch_size_fn=count)
    async def _text_batch(self, groups: list[list[str]]) -> list[Matrix]:
        return split(await self._run(lambda: self._engine.encode_text([text for group in groups for text in group])), groups)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._compute, call)


def application(args: dict[str, Any]) -> serve.Application:
    """Raises pydantic.ValidationError for bad args."""
    options = ServingOptions.model_validate(args)
    bound: serve.Application = cast(Any, Student).bind(options.model_dump())
    return bound
