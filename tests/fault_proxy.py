"""An HTTP proxy, in a process of its own, that loses, delays, refuses and fabricates responses; made for S3 stores.

`fault_proxy` starts one for a test. Other programs start `python -m tests.fault_proxy UPSTREAM PORT CONTROL_PORT` and switch it
at run time through its control port:

PUT    /faults    a list of `Fault` as JSON replaces the faults; their counts start again
PUT    /refused   true: close every connection and accept none, as if the network were partitioned; false: accept again
GET    /requests  the requests since the last DELETE: `{method, path, status, faults}`; status is None if none was answered
DELETE /requests
"""

import asyncio
import json
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import aiohttp
import multidict
import pytest
import s3fs
import yarl
from aiohttp import web

from tests.ports import free_ports
from tests.s3 import s3_server

START_SECONDS = 60.0
HOST = "127.0.0.1"
CONNECTION_HEADERS = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"}
ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>A fault</Message></Error>"


@dataclass(frozen=True)
class Fault:
    """A fault of the matching requests. Of those that apply to a request, delays add up and the first other one counts."""

    effect: Literal["drop", "truncate", "error", "hang", "delay"]
    """drop: close the connection without a response. truncate: close it in the middle of the body. error: answer `status`
    with `code` of S3. hang: never answer. delay: wait for `seconds`."""
    forward: bool = True
    """Whether the upstream receives a request that is dropped, hangs or is answered with an error: it commits, the response is
    lost. A delay precedes the forwarding, a truncated response always follows it."""
    methods: tuple[str, ...] = ()
    """Empty: all."""
    path: str = ""
    """A regular expression, searched in path and query."""
    header: str = ""
    """The name of a header that the request must have, such as If-None-Match."""
    numbers: tuple[int, ...] = ()
    """Of the matching requests only these, counted from 1. Empty: all."""
    probability: float = 1.0
    seed: int = 0
    seconds: float = 0.0
    status: int = 503
    code: str = "SlowDown"


@dataclass
class _Armed:
    """A fault, the number of requests that it matched, and its random numbers."""

    fault: Fault
    matched: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.fault.seed)

    def applies(self, request: web.BaseRequest) -> bool:
        fault = self.fault
        if fault.methods and request.method not in fault.methods:
            return False
        if not re.search(fault.path, request.raw_path) or (fault.header and fault.header not in request.headers):
            return False
        self.matched += 1
        drawn = self._random.random() < fault.probability
        return drawn and (not fault.numbers or self.matched in fault.numbers)


class FaultProxy:
    """The control of a running proxy."""

    def __init__(self, port: int, control_port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self._control = f"http://{HOST}:{control_port}"

    def set(self, *faults: Fault) -> None:
        """Replace the faults; none removes them all. Hanging requests stay so until their clients close the connection."""
        self._call("PUT", "faults", [asdict(fault) for fault in faults])

    def refuse(self, refused: bool = True) -> None:
        """Close every connection and accept none, or accept again."""
        self._call("PUT", "refused", refused)

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests since `forget_requests`, in order of arrival."""
        found: list[dict[str, Any]] = self._call("GET", "requests")
        return found

    def forget_requests(self) -> None:
        self._call("DELETE", "requests")

    def _call(self, method: str, name: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self._control}/{name}", data, method=method), timeout=30) as answer:
            return json.load(answer)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of an HTTP server; it forwards everything until faults are set."""
    port, control_port = free_ports(2)
    command = [sys.executable, "-m", "tests.fault_proxy", upstream, str(port), str(control_port)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        proxy = FaultProxy(port, control_port)
        _wait(proxy, process)
        yield proxy
    finally:
        process.kill()
        process.wait()


@contextmanager
def s3_proxy(environment: dict[str, str]) -> Iterator[tuple[FaultProxy, dict[str, str]]]:
    """Run a proxy in front of an S3 server; yield it and the environment variables that configure S3 clients for it."""
    with fault_proxy(environment["AWS_ENDPOINT_URL"]) as proxy:
        yield proxy, {**environment, "AWS_ENDPOINT_URL": proxy.url}


@pytest.fixture(scope="session")
def proxied_s3() -> Iterator[tuple[FaultProxy, dict[str, str]]]:
    """An S3 server behind a proxy, with the environment variables of its clients; shared by the tests of a process."""
    with s3_server() as environment, s3_proxy(environment) as (proxy, proxied):
        yield proxy, proxied


@pytest.fixture
def faulty_s3(proxied_s3: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The proxy of `proxied_s3`, without faults so far, with this process's S3 clients configured for it."""
    proxy, environment = proxied_s3
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # instances keep the address that they have seen first
    yield proxy
    proxy.set()
    proxy.refuse(False)
    s3fs.S3FileSystem.clear_instance_cache()


def _wait(proxy: FaultProxy, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            proxy.forget_requests()
        except urllib.error.URLError:  # not listening yet
            assert process.poll() is None, f"the proxy exited with status {process.returncode}"
            assert time.monotonic() < end, f"the proxy was not ready after {START_SECONDS:g} s"
            time.sleep(0.05)
        else:
            return


class _Server:
    """The proxy itself."""

    def __init__(self, upstream: str, port: int, http: aiohttp.ClientSession) -> None:
        self._upstream, self._port, self._http = upstream.rstrip("/"), port, http
        self._armed: list[_Armed] = []
        self._requests: list[dict[str, Any]] = []
        self._runner: web.ServerRunner | None = None
        self._connections = web.Server(self._handle, handler_cancellation=True)

    async def accept(self) -> None:
        if self._runner is None:
            self._runner = web.ServerRunner(self._connections)
            await self._runner.setup()
            await web.TCPSite(self._runner, HOST, self._port, reuse_address=True).start()

    async def refuse(self) -> None:
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            for connection in self._connections.connections:
                _abort(connection.transport)
            self._runner = None

    async def control(self, request: web.BaseRequest) -> web.Response:
        """Answer a request to the control port."""
        answer: object = None
        match request.method, request.path:
            case "PUT", "/faults":
                faults = json.loads(await request.read())
                self._armed = [_Armed(Fault(**fault)) for fault in faults]
            case "PUT", "/refused":
                await (self.refuse() if json.loads(await request.read()) else self.accept())
            case "GET", "/requests":
                answer = self._requests
            case "DELETE", "/requests":
                self._requests = []
            case _:
                return web.json_response("no such resource", status=404)
        return web.json_response(answer)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        found = [armed.fault for armed in self._armed if armed.applies(request)]
        effects = [fault.effect for fault in found]
        record: dict[str, Any] = {"method": request.method, "path": request.raw_path, "status": None, "faults": effects}
        self._requests.append(record)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = b"".join([chunk async for chunk in request.content.iter_any()])
        await asyncio.sleep(sum(fault.seconds for fault in found if fault.effect == "delay"))
        fault = next((fault for fault in found if fault.effect != "delay"), None)
        if fault is None:
            response = await self._forward(request, body)
        else:
            response = await self._respond_faultily(request, body, fault)
        record["status"] = response.status
        return response

    async def _respond_faultily(self, request: web.BaseRequest, body: bytes, fault: Fault) -> web.StreamResponse:
        """Raises CancelledError where the client is to receive no response."""
        answer = await self._forward(request, body) if fault.forward or fault.effect == "truncate" else None
        if fault.effect == "error":
            return web.Response(status=fault.status, text=ERROR.format(code=fault.code), content_type="application/xml")
        if fault.effect == "hang":
            await asyncio.Event().wait()
        if fault.effect == "truncate" and answer is not None:
            await _send_half(request, answer)
        _abort(request.transport)
        raise asyncio.CancelledError

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        headers = _forwarded(request.headers)
        url = yarl.URL(f"{self._upstream}{request.raw_path}", encoded=True)
        try:
            async with self._http.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
                data = await answer.read()
                kept = multidict.CIMultiDict(_forwarded(answer.headers))
                return web.Response(status=answer.status, reason=answer.reason, headers=kept, body=data)
        except aiohttp.ClientError:  # the upstream is down
            _abort(request.transport)
            raise asyncio.CancelledError from None


def _forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in CONNECTION_HEADERS]


def _abort(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.Transport):
        transport.abort()


async def _send_half(request: web.BaseRequest, answer: web.Response) -> None:
    body = answer.body if isinstance(answer.body, bytes) else b""
    partial = web.StreamResponse(status=answer.status, headers=answer.headers)
    partial.content_length = len(body)
    await partial.prepare(request)
    await partial.write(body[: len(body) // 2])


async def serve(upstream: str, port: int, control_port: int) -> None:
    """Forward requests of `port` to the upstream, and answer those of the control port, until the process is killed."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
        skip_auto_headers=["User-Agent", "Content-Type"],
    )
    async with session as http:
        server = _Server(upstream, port, http)
        await server.accept()
        runner = web.ServerRunner(web.Server(server.control))
        await runner.setup()
        await web.TCPSite(runner, HOST, control_port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
