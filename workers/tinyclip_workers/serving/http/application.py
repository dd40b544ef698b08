"""The routes of a deployment as an ASGI application, without Serve: what is asked for by which path."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinyclip_workers.serving.compat import clip_retrieval as shapes_clip_retrieval
from tinyclip_workers.serving.compat import hugging_face as shapes_hugging_face
from tinyclip_workers.serving.compat import openai as shapes_openai
from tinyclip_workers.serving.compat import weaviate as shapes_weaviate
from tinyclip_workers.serving.http import label_sets as routes_label_sets
from tinyclip_workers.serving.http import openapi, routes, try_it
from tinyclip_workers.serving.http.middleware import Requests
from tinyclip_workers.serving.http.route import Described, Handler
from tinyclip_workers.serving.queries.problems import Refusal, answer_http_error, answer_refusal

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

ROUTES: list[Described] = [
    *routes.ROUTES,
    *routes_label_sets.ROUTES,
    *shapes_hugging_face.ROUTES,
    *shapes_openai.ROUTES,
    *shapes_weaviate.ROUTES,
    *shapes_clip_retrieval.ROUTES,
    *try_it.ROUTES,
]


def make_app(student: "Callable[[], Student]", *, tell_id: bool = True) -> Starlette:
    """`student` finds the replica that answers; see `Requests` for `tell_id`."""
    described = [Route(route.path, _endpoint(student, route), methods=[route.method]) for route in ROUTES]
    return Starlette(
        routes=[*described, Route("/openapi.json", _endpoint(student, _OPENAPI), methods=["GET"])],
        middleware=[Middleware(Requests, student=student, tell_id=tell_id)],
        exception_handlers={Refusal: answer_refusal, HTTPException: answer_http_error},
    )


async def _openapi(student: "Student", request: Request) -> Response:
    return JSONResponse(openapi.document(ROUTES, student.options.name, request.scope.get("root_path", "")))


_OPENAPI = Described("GET", "/openapi.json", _openapi, "This document")


def _endpoint(student: "Callable[[], Student]", route: Described) -> Callable[[Request], Awaitable[Response]]:
    handler: Handler = route.handler

    async def endpoint(request: Request) -> Response:
        request.state.asked.route = route.path
        return await handler(student(), request)

    return endpoint
