"""The OpenAPI document of a deployment, from its table of routes and the wire schemas."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema
from tinyclip.schemas import JSON, Problem

from tinyclip_workers.serving.compat.openai import OpenAIErrorBody, is_openai
from tinyclip_workers.serving.http.routes import DocumentedRoute
from tinyclip_workers.serving.replica.access import OPEN_PAGE, OPEN_PATHS

_REFERENCE = "#/components/schemas/{model}"


def document(routes: Sequence[DocumentedRoute], deployment: str, prefix: str) -> JSON:
    """Return OpenAPI 3.1; `prefix` is the path of the deployment."""
    bodies = {route.body for route in routes if route.body is not None}
    names, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    definitions = dict(schemas.get("$defs", {}))
    paths: dict[str, JSON] = {}
    for route in routes:
        answer = _schema(route.answer, definitions)
        request = names[(route.body, "validation")] if route.body is not None else None
        paths.setdefault(_path(route), {})[route.method.lower()] = _operation(route, request, answer)
    for error in (Problem, OpenAIErrorBody):
        _schema(error, definitions)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"TinyCLIP deployment {deployment}", "version": "1"},
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "A token of scope infer"}},
        },
    }


def _operation(route: DocumentedRoute, body: Any, answer: Any) -> JSON:
    error = ("application/json", "OpenAIErrorBody") if is_openai(route.path) else ("application/problem+json", "Problem")
    failure = {
        "description": "The request failed; the document names the cause and what to do",
        "content": {error[0]: {"schema": {"$ref": _REFERENCE.format(model=error[1])}}},
    }
    success = {"description": "Success", **({"content": _json(answer)} if answer is not None else {})}
    responses = {str(route.status): success, "4XX": failure, "5XX": failure}
    operation: JSON = {"summary": route.summary, "responses": responses}
    if route.path not in OPEN_PATHS and (route.path, route.method) != (OPEN_PAGE, "GET"):
        operation["security"] = [{"token": []}, {}]
    if names := re.findall(r"\{(\w+)\}", _path(route)):
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    if body is not None:
        content = _json(body)
        if route.form:
            content["multipart/form-data"] = {"schema": _form(route.form)}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path(route: DocumentedRoute) -> str:
    """Return the path without Starlette's converters: `{id:path}` is `{id}`."""
    return re.sub(r":\w+\}", "}", route.path)


def _schema(answer: Any, definitions: JSON) -> Any:
    if answer is None:
        return None
    schema = TypeAdapter(answer).json_schema(ref_template=_REFERENCE, mode="serialization")
    for name, definition in schema.pop("$defs", {}).items():
        definitions.setdefault(name, definition)
    if "title" in schema and schema.get("type") == "object":
        name = re.sub(r"\W+", "_", schema["title"]).strip("_")
        definitions[name] = schema
        return {"$ref": _REFERENCE.format(model=name)}
    return schema


def _form(fields: tuple[str, ...]) -> JSON:
    repeated = {"labels", "templates", "input"}
    text: JSON = {"type": "string"}
    properties: JSON = {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}}
    properties |= {name: {"type": "array", "items": text} if name in repeated else text for name in fields}
    return {"type": "object", "properties": properties}


def _json(schema: Any) -> JSON:
    return {"application/json": {"schema": schema}}
