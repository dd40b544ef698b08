"""A stream that breaks is gone on with: no event missing, none twice."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import tinyclip
from tinyclip import AsyncClient, Client, Retries

from tests.client.documents import event, job, problem

EVENTS = [event(number, "progress", f"event {number}") for number in range(1, 8)]


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"id: {each['id']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)


class Breaking(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that is cut off."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        yield self._sent
        raise httpx.ReadError("connection reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._sent
        raise httpx.ReadError("connection reset")


class Unsteady:
    """A server that breaks in the middle of an event, is away, repeats itself, ends early, and at last tells all."""

    def __init__(self) -> None:
        self.asked_after: list[str] = []
        self._states = iter(["running", "succeeded"])

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs/job_1":
            return httpx.Response(200, json=job(state=next(self._states)))
        assert request.headers["accept"] == "text/event-stream"
        self.asked_after.append(request.headers["last-event-id"])
        match len(self.asked_after):
            case 1:
                return self.stream(Breaking(sse(*EVENTS[:2]) + sse(EVENTS[2])[:-30]))
            case 2:
                return httpx.Response(503, json=problem(503, "restarting"))
            case 3:
                raise httpx.ConnectError("refused")
            case 4:
                return self.stream(httpx.ByteStream(b": keep alive\n\n" + sse(*EVENTS[:4])))
            case 5:
                return self.stream(httpx.ByteStream(sse(*EVENTS[4:])))
        return self.stream(httpx.ByteStream(b": nothing more\n\n"))

    @staticmethod
    def stream(body: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body)


AT_ONCE = Retries(first_wait=0.0)
RESUMED = ["0", "2", "2", "2", "4", "7"]
"""After which event each connection asked to go on; the last is made after the job was seen to have ended."""


def test_a_broken_stream_is_gone_on_with_without_gap_or_repeat() -> None:
    server = Unsteady()
    client = Client("http://server", retries=AT_ONCE, transport=httpx.MockTransport(server.handle))

    seen = [each.id for each in client.jobs.events("job_1")]

    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert server.asked_after == RESUMED


async def test_a_broken_stream_is_gone_on_with_in_a_task() -> None:
    server = Unsteady()
    async with AsyncClient("http://server", retries=AT_ONCE, transport=httpx.MockTransport(server.handle)) as client:
        seen = [each.id async for each in client.jobs.events("job_1")]

    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert server.asked_after == RESUMED


def test_reading_may_begin_after_any_event() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs/job_1":
            return httpx.Response(200, json=job(state="failed"))
        asked.append(request.headers["last-event-id"])
        return Unsteady.stream(httpx.ByteStream(sse(*EVENTS[int(asked[-1]):])))

    client = Client("http://server", transport=httpx.MockTransport(handle))

    assert [each.id for each in client.jobs.events("job_1", after=5)] == [6, 7]
    assert asked == ["5", "7"]


def test_a_refusal_ends_a_stream_at_once() -> None:
    missing = httpx.Response(404, json=problem(404, "there is no job job_1"))
    client = Client("http://server", transport=httpx.MockTransport(lambda _: missing))

    with pytest.raises(tinyclip.NotFound, match="there is no job job_1"):
        list(client.jobs.events("job_1"))


def test_patience_with_a_server_that_stays_away_ends() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = Client("http://server", retries=AT_ONCE, transport=httpx.MockTransport(handle))

    with pytest.raises(tinyclip.CannotReachServer):
        list(client.jobs.events("job_1", patience=0.05))


def test_what_is_no_event_stream_is_a_server_that_cannot_be_reached() -> None:
    client = Client("http://server", retries=AT_ONCE, transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hello")))

    with pytest.raises(tinyclip.CannotReachServer, match="text/event-stream"):
        list(client.jobs.logs("job_1", patience=0.05))
