"""`GET {endpoint}`: a page to try the student with, in one file and without anything from elsewhere."""

from importlib import resources
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tinyclip_workers.serving.http.route import Described

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Student

# Only what is in the page runs, and it asks nobody but its deployment; no other page may show it in a frame.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


async def page(student: "Student", request: Request) -> Response:
    text = await student.in_thread(resources.files(__package__).joinpath("try_it.html").read_text)
    return HTMLResponse(text, headers=_HEADERS)


ROUTES = [Described("GET", "/", page, "A page to try the student with")]
