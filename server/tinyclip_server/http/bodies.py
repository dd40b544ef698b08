"""JSON bodies of requests: parsed and validated at a bounded cost, and off the event loop if they are large."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from tinyclip.bounded_json import Limits, MalformedJson, TooComplex, UnstorableText, off_the_loop, parse

from tinyclip_server.problems import InvalidInput

Model = TypeVar("Model", bound=BaseModel)

SMALL = Limits()
VECTORS = Limits(values=1_100_000, keys=100_000, colons=200_000)
"""A thousand items with vectors of a thousand numbers."""


class BoundedRoute(APIRoute):
    """A route whose body is validated before the endpoint is called; every router whose routes have bodies uses it."""

    limits = SMALL

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, field, limits = super().get_route_handler(), self.body_field, self.limits
        if field is None:
            return handle
        model: type[BaseModel] = field.field_info.annotation  # type: ignore[assignment]

        async def handle_validated(request: Request) -> Response:
            body = await whole_body(request)
            return await handle(_ValidatedRequest(request, body, await validated(request, body, model, limits)))

        return handle_validated


class VectorsRoute(BoundedRoute):
    """A route whose bodies may hold many numbers."""

    limits = VECTORS


class _ValidatedRequest(Request):
    """A request whose body is a document of a schema already: FastAPI validates an instance by returning it."""

    def __init__(self, request: Request, body: bytes, document: BaseModel) -> None:
        super().__init__(request.scope, request.receive)
        self._whole, self._document = body, document

    async def body(self) -> bytes:
        return self._whole

    async def json(self) -> BaseModel:
        return self._document


async def whole_body(request: Request) -> bytes:
    """Return the body. Raises TooLarge, Unavailable, InvalidInput."""
    try:
        return await request.body()
    except ClientDisconnect as gone:
        raise InvalidInput("the request is incomplete; send it again", code="incomplete") from gone


async def validated(request: Request, body: bytes, model: type[Model], limits: Limits = SMALL) -> Model:
    """Return a JSON body as a document of a schema. Raises InvalidInput."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body or not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        raise InvalidInput.field("", None, "a JSON body is required (Content-Type: application/json)")
    return await off_the_loop(len(body), lambda: _validate(body, model, limits))


def _validate(body: bytes, model: type[Model], limits: Limits) -> Model:
    try:
        document = parse(body, limits)
    except MalformedJson as error:
        raise InvalidInput.field("", None, str(error), code="malformed_json") from error
    except UnstorableText as error:
        raise InvalidInput(str(error)) from error
    except TooComplex as error:
        raise InvalidInput(str(error), code="too_complex") from error
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidInput.document(error, document, model) from error
