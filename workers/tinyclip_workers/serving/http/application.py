"""The ASGI application of a deployment: the routes, the middleware and the error handlers."""

import json
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tinyclip_workers.serving.http import openapi
from tinyclip_workers.serving.http.errors import on_http_exception, on_problem_error
from tinyclip_workers.serving.http.middleware import RequestMiddleware
from tinyclip_workers.serving.http.routes import ROUTES, DocumentedRoute
from tinyclip_workers.serving.problems import ProblemError

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica


def make_app(get_replica: "Callable[[], Replica]", *, send_request_id: bool = True) -> Starlette:
    """Return the application; `get_replica` is called once per request. See `RequestMiddleware` for `send_request_id`."""
    routes = [*ROUTES, DocumentedRoute("GET", "/openapi.json", _openapi, "This document")]
    return Starlette(
        routes=[Route(route.path, _endpoint(get_replica, route), methods=[route.method]) for route in routes],
        middleware=[Middleware(RequestMiddleware, get_replica=get_replica, send_request_id=send_request_id)],
        exception_handlers={ProblemError: on_problem_error, HTTPException: on_http_exception},
    )


async def _openapi(replica: "Replica", request: Request) -> Response:
    make = partial(_openapi_document, replica.options.name, request.scope.get("root_path", ""))
    return Response(await replica.run_in_thread(make), media_type="application/json")


@lru_cache(maxsize=4)
def _openapi_document(deployment: str, prefix: str) -> bytes:
    """Return the document, which takes a tenth of a second to make and is open to callers without a token."""
    return json.dumps(openapi.document(ROUTES, deployment, prefix)).encode()


def _endpoint(get_replica: "Callable[[], Replica]", route: DocumentedRoute) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.state.context.route = route.path
        return await route.handler(get_replica(), request)

    return endpoint
