"""Additions to the OpenAPI document: every error of every route is a problem document."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from tinyclip.schemas import Problem

from tinyclip_server.problems import PROBLEM_JSON

ANY_PROBLEM: dict[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "a problem document"}}
"""The `responses` of every route."""
METHODS = frozenset({"get", "put", "post", "patch", "delete"})


def install_document(app: FastAPI) -> None:
    """Serve the document with these additions at `/openapi.json`."""

    def document() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            for path in schema["paths"].values():
                for method in METHODS & path.keys():
                    _errors_are_problems(path[method]["responses"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _errors_are_problems(responses: dict[str, Any]) -> None:
    """Replace the media type of the default response: FastAPI uses that of the route's successful response."""
    for schema in responses.get("default", {}).get("content", {}).values():
        responses["default"]["content"] = {PROBLEM_JSON: schema}
