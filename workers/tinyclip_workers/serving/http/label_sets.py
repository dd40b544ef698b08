"""Routes for label sets: register, look, remove."""

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tinyclip.schemas import LabelSet, LabelSetPut, LabelSetSummary, Page

from tinyclip_workers.serving.http.route import Described
from tinyclip_workers.serving.queries.parsing import read_label_set
from tinyclip_workers.serving.queries.problems import field_error, invalid

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

LONGEST_PAGE = 200


async def put(student: "Student", request: Request) -> Response:
    asked = await read_label_set(request, student.options)
    made, is_new = await student.label_sets.put(request.path_params["name"], asked.labels, asked.templates)
    student.prepare(made)
    return JSONResponse(made.model_dump(), 201 if is_new else 200)


async def get(student: "Student", request: Request) -> Response:
    return JSONResponse((await student.label_sets.get(request.path_params["name"], "/name")).model_dump())


async def delete(student: "Student", request: Request) -> Response:
    await student.label_sets.delete(request.path_params["name"])
    return Response(status_code=204)


async def find(student: "Student", request: Request) -> Response:
    """By name, a page at a time; the token of the next page is the last name of this one."""
    size = _page_size(request.query_params.get("page_size", "50"))
    after = request.query_params.get("page_token", "")
    names = [name for name in await student.label_sets.names() if name > after]
    found = await asyncio.gather(*(student.label_sets.get(name) for name in names[:size]), return_exceptions=True)
    items = [
        LabelSetSummary(name=one.name, labels=len(one.labels), templates=len(one.templates))
        for one in found
        if isinstance(one, LabelSet)  # others were removed since they were listed
    ]
    token = names[size - 1] if len(names) > size else None
    return JSONResponse(Page[LabelSetSummary](items=items, next_page_token=token).model_dump())


def _page_size(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= LONGEST_PAGE:
        raise invalid(field_error("/page_size", given, f"give a number from 1 to {LONGEST_PAGE}"))
    return int(given)


ROUTES = [
    Described("GET", "/label-sets", find, "Registered label sets, by name", answer=Page[LabelSetSummary]),
    Described("PUT", "/label-sets/{name}", put, "Register labels with their templates", LabelSetPut, answer=LabelSet, status=201),
    Described("GET", "/label-sets/{name}", get, "A registered label set", answer=LabelSet),
    Described("DELETE", "/label-sets/{name}", delete, "Forget a label set", status=204),
]
