"""The page at `GET {endpoint}` to try a deployment with a browser: one file that loads nothing from elsewhere."""

from importlib import resources
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from tinyclip_workers.serving.replica.replica import Replica

# Only the page's own code runs, it sends requests to its deployment only, and no other page may embed it in a frame.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


async def page(replica: "Replica", request: Request) -> Response:
    html = await replica.run_in_thread(resources.files(__package__).joinpath("try_it.html").read_text)
    return HTMLResponse(html, headers=_HEADERS)
