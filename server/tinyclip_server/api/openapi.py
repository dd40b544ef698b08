"""The OpenAPI document, with an addition: every error of every route is a problem document."""

import asyncio
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinyclip.schemas import Problem

from tinyclip_server.problems import PROBLEM_JSON

ANY_PROBLEM: dict[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "a problem document"}}
"""The `responses` of every route."""
METHODS = frozenset({"get", "put", "post", "patch", "delete"})


def install_document(app: FastAPI) -> None:
    """Serve the document with this addition in the place of FastAPI's, which is made on the event loop in some seconds."""
    made = asyncio.Lock()
    body = b""

    def document() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for path in schema["paths"].values():
                for method in METHODS & path.keys():
                    _errors_are_problems(path[method]["responses"])
            app.openapi_schema = schema
        return app.openapi_schema

    async def answer(request: Request) -> Response:
        nonlocal body
        async with made:
            body = body or await asyncio.to_thread(lambda: bytes(JSONResponse(document()).body))
        return Response(body, media_type="application/json")

    app.openapi = document  # type: ignore[method-assign]
    others = [route for route in app.routes if getattr(route, "path", None) != app.openapi_url]
    app.router.routes[:] = [*others, Route(str(app.openapi_url), answer, include_in_schema=False)]


def _errors_are_problems(responses: dict[str, Any]) -> None:
    """Replace the media type of the default response: FastAPI uses that of the route's successful response."""
    for schema in responses.get("default", {}).get("content", {}).values():
        responses["default"]["content"] = {PROBLEM_JSON: schema}
