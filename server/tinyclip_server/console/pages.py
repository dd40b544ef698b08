"""The requests that the console answers: its pages at any address that is not the API's, and its files below `/assets`.

It answers them before the routes, so no route of the API can be reached without a token by way of it. A page holds no data.
Its Content-Security-Policy allows scripts of this server only, and requests to it.
"""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tinyclip_server.console.files import BuiltFile, read_built
from tinyclip_server.http.conditions import matches, quoted
from tinyclip_server.problems import ApiError, NotFound

API_PATHS = ("/v1", "/metrics", "/livez", "/readyz", "/openapi.json")
"""Paths that belong to the API, with everything below them: no page is ever shown there."""
PAGES = {"/": "index.html", "/docs": "docs.html", "/redoc": "redoc.html"}
ASSETS = "/assets/"

POLICY = "; ".join([
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self' 'unsafe-inline'",  # Mantine and Swagger UI set styles of elements
    "img-src 'self' blob: data:",  # thumbnails are fetched with the token and shown from memory
    "font-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
])  # fmt: skip
PAGE_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MISSING_ASSET = "there is no such file; reload the page: the server may have been upgraded"
NOT_BUILT = "the console is not part of this installation; run `make console` in a clone, or install a released wheel"
ASSET_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}  # their names contain a hash of their content


class Console:
    """Middleware that answers the console's requests and passes on all others."""

    def __init__(self, app: ASGIApp, refuse: Callable[[Request, ApiError], Response]) -> None:
        """`refuse` returns the problem document of an error."""
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_console(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            answer = await _answer(request)
        except ApiError as error:
            answer = self._refuse(request, error)
        await answer(scope, receive, send)


def is_console(method: str, path: str) -> bool:
    """Return whether a request is for the console."""
    is_api = any(path == prefix or path.startswith(f"{prefix}/") for prefix in API_PATHS)
    return method in ("GET", "HEAD") and not is_api


async def _answer(request: Request) -> Response:
    """Return a page or a file. Raises NotFound."""
    path = request.scope["path"]
    is_asset = path.startswith(ASSETS)
    name = path.removeprefix("/") if is_asset else PAGES.get(path)
    if name is None:
        if "text/html" not in request.headers.get("accept", ""):
            raise NotFound(f"there is no {path[:200]}; /docs lists the routes", code="no_route")
        name = PAGES["/"]  # the browser's address of a view
    file = await asyncio.to_thread(read_built, name)
    if file is None:
        raise NotFound(MISSING_ASSET if is_asset else NOT_BUILT, code="no_such_file")
    return _response(request, file, ASSET_HEADERS if is_asset else PAGE_HEADERS)


def _response(request: Request, file: BuiltFile, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": quoted(file.etag), "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if matches(request.headers.get("if-none-match"), file.etag):
        return Response(status_code=304, headers=headers)
    content = file.plain
    if file.gzipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = file.gzipped, "gzip"
    return Response(content, headers=headers, media_type=file.media_type)
