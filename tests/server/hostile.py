"""Hostile requests: schemathesis draws them from the OpenAPI document, and worse values are put into them.

It is imported when the first ones are drawn: that takes a second, in every worker of pytest.
"""

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import requests
from fastapi import FastAPI
from hypothesis import strategies as st


def page_token(*key: Any) -> str:
    """Return a key as the `next_page_token` of a list."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\u202e\ufeff", "é" * 300, "x" * 10_000, "0", "-1", "1e400", "NaN", "true",
    "null", "None", "../../etc/passwd", "..%2f..%2fetc", "%00", "%", "/", "//", "?", "#", "...", "a/b", "a:b", ":", "k:v", "*",
    'W/"1.1"', '"', "bytes=-0", "bytes=9-1", "'; DROP TABLE jobs; --", "${jndi:ldap://x}", "{{7*7}}", "<script>", "\r\nX-A: b",
    "file:///etc/shadow", "s3://x/y", "http://169.254.169.254/latest", "registry:x@", "a@b@c", "emoji@99999999999999999999",
    "9" * 5000, "٣", "²", "１２", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30", "latest",
    page_token("0001-01-01T00:00:00+14:00", "job_x"), page_token("9999-12-31T23:59:59-14:00", "job_x"),
    page_token("2026-01-01T00:00:00", "x"), page_token("2026-01-01T00:00:00+00:00", "\0"),
    page_token("2026-01-01T00:00:00+00:00", "\ud800"), page_token("\0"), page_token("\ud800"), page_token(2**63),
    page_token(True), page_token(-1), page_token(1.5), page_token([]), page_token({}), page_token(None, None), page_token(),
    base64.urlsafe_b64encode(b"[1e999]").decode(), base64.urlsafe_b64encode(b"[" * 20_000).decode(),
    "W10", "bnVsbA", "!!!!", "YQ==YQ",
]
NUMBERS = [
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**25, 10**400, 1e308, -1e308, 5e-324, 0.1, -0.0,
    float("inf"), float("-inf"), float("nan"),
]
OTHERS = [None, True, False, [], {}, [[]], {"": {}}, {"\0": "\0"}, [None] * 50, {"a" * 5000: 1}]
ANYTHING = st.sampled_from([*TEXTS, *NUMBERS, *OTHERS])
BODIES = [
    b"", b"{", b"null", b"[]", b"0", b'""', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\x80", b"{}{}", b'{"a":1,"a":2}',
    b"[" * 100_000, b'{"a":' * 20_000, b'{"name":' + b"9" * 5000 + b"}", b'{"name":NaN}',
    b'{"name":"\\ud800"}', b'{"\\u0000":"\\u0000"}',
    b'{"name":"\xed\xa0\x80"}', b'{"name": 1e999}', b"\0" * 100, b'{"labels":{"\\udc00":"x"}}',
]
TYPES = ["application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data", "application/x-tar",
         "application/problem+json", "application/octet-stream", "json", "application/x-www-form-urlencoded", ";", ""]
HEADERS = ["Accept", "If-Match", "If-None-Match", "If-Range", "Range", "Last-Event-ID", "Idempotency-Key", "X-Request-Id",
           "Content-Encoding", "X-Forwarded-For", "Cookie", "Accept-Encoding"]

@dataclass(frozen=True)
class Target:
    """One operation of the document, for which requests are drawn."""

    operation: Any
    known: dict[str, list[str]]
    """Values of path parameters that lead to existing resources."""
    bodies: dict[str, Any]
    """A valid body by operation."""

    @property
    def label(self) -> str:
        return str(self.operation.label)

    @cached_property
    def cases(self) -> st.SearchStrategy[Any]:
        return self.operation.as_strategy()

    def draw(self, data: st.DataObject) -> tuple[Any, httpx.Request]:
        """Draw a case, against which the response is checked, and the request that is sent: the case, or a worse one."""
        case = data.draw(self.cases)
        if self.label in self.bodies and data.draw(st.booleans()):  # drawn bodies seldom pass validation
            case.body, case.media_type = copy.deepcopy(self.bodies[self.label]), "application/json"
        for name, values in self.known.items():
            if name in (case.path_parameters or {}) and data.draw(st.integers(0, 3)):
                case.path_parameters[name] = data.draw(st.sampled_from(values))
        parts = requests.Request(**case.as_transport_kwargs(base_url="http://127.0.0.1")).prepare()
        request = httpx.Request(case.method, parts.url or "", headers=_without_length(parts.headers), content=parts.body or b"")
        for change in data.draw(st.lists(st.sampled_from([_body, _leaf, _query, _header, _path]), max_size=2)):
            request = change(data, case, request)
        return case, request


_document: dict[str, Any] = {}


def targets(app: FastAPI, known: dict[str, list[str]], bodies: dict[str, Any]) -> list[Target]:
    """Return a target for every operation; those that end or delete resources come last, parts before wholes."""
    import schemathesis

    if not _document:
        _document.update(app.openapi())  # takes seconds, and is the same for every application
    schema = schemathesis.openapi.from_dict(_document)
    every = [Target(found.ok(), known, bodies) for found in schema.get_all_operations()]
    last = [target for target in every if target.label.startswith("DELETE") or target.label.endswith("/cancel")]
    return [target for target in every if target not in last] + sorted(last, key=lambda target: -target.label.count("/"))


def check_response(case: Any, request: httpx.Request, response: httpx.Response) -> None:
    """Raise if the document does not declare the status, media type, headers and schema of a response, and for any 5xx."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    response.request = httpx.Request(request.method, "http://127.0.0.1/")  # the checks cannot print the request that was sent
    try:
        case.validate_response(
            response,
            checks=[
                not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
                checks.response_headers_conformance, checks.response_schema_conformance,
            ],
        )  # fmt: skip
    except Exception as found:
        sent = f"{request.method} {request.url} {request.headers.raw} {request.content[:500]!r}"
        found.add_note(f"sent: {sent[:3000]}")
        raise


def _without_length(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(_latin(key), _latin(value)) for key, value in headers.items() if key.lower() != "content-length"]


def _latin(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


def _changed(request: httpx.Request, *, url: Any = None, headers: Any = None, content: bytes | None = None) -> httpx.Request:
    kept = [(key, value) for key, value in request.headers.raw if key.lower() not in (b"content-length", b"host")]
    return httpx.Request(
        request.method, url or request.url, headers=headers if headers is not None else kept,
        content=request.content if content is None else content,
    )


def _body(data: st.DataObject, case: Any, request: httpx.Request) -> httpx.Request:
    """Replace the body, and perhaps its media type."""
    kept = [pair for pair in request.headers.raw if pair[0].lower() not in (b"content-type", b"content-length", b"host")]
    kind = data.draw(st.sampled_from([*TYPES[:1] * 10, *TYPES]))
    return _changed(request, headers=[*kept, (b"content-type", kind.encode())], content=data.draw(st.sampled_from(BODIES)))


def _leaf(data: st.DataObject, case: Any, request: httpx.Request) -> httpx.Request:
    """Replace a value of a JSON body."""
    try:
        document = json.loads(request.content)
    except (ValueError, RecursionError):
        return request
    places = list(_places(document))
    if not places:
        return request
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(ANYTHING)
    return _changed(request, content=json.dumps(document).encode())


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a document: its container, and its key or index."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _places(document[key])


def _query(data: st.DataObject, case: Any, request: httpx.Request) -> httpx.Request:
    """Add a query parameter of the operation with any value, perhaps twice."""
    names = [parameter.name for parameter in case.operation.query] or ["x"]
    value = data.draw(st.sampled_from(TEXTS))
    more = urlencode([(data.draw(st.sampled_from(names)), value)] * data.draw(st.integers(1, 2)), errors="surrogatepass")
    before = request.url.query.decode()
    return _changed(request, url=request.url.copy_with(query=f"{before}&{more}".strip("&").encode()))


def _header(data: st.DataObject, case: Any, request: httpx.Request) -> httpx.Request:
    """Add a header with any value that HTTP can carry."""
    value = data.draw(st.sampled_from(TEXTS)).encode("utf-8", "surrogatepass").replace(b"\0", b"").replace(b"\r\n", b"")
    kept = [pair for pair in request.headers.raw if pair[0].lower() not in (b"content-length", b"host")]
    return _changed(request, headers=[*kept, (data.draw(st.sampled_from(HEADERS)).encode(), value[:2000])])


def _path(data: st.DataObject, case: Any, request: httpx.Request) -> httpx.Request:
    """Replace a path parameter with any value, escaped so that it stays one segment."""
    values = dict(case.path_parameters or {})
    if not values:
        return request
    values[data.draw(st.sampled_from(sorted(values)))] = data.draw(st.sampled_from(TEXTS))
    path = case.operation.path
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe="", errors="surrogatepass"))
    query = request.url.query
    return _changed(request, url=f"http://127.0.0.1{path}" + (f"?{query.decode()}" if query else ""))
