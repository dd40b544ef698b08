"""A stream that breaks is continued: no event is missing, none is repeated."""

import json
from typing import Any

import httpx
import pytest
import tinyclip
from tinyclip import Retries

from tests.client.clients import Connect, CutOff, client_of
from tests.client.documents import event, job, problem

EVENTS = [event(number, "progress", f"event {number}") for number in range(1, 8)]
NO_WAIT = Retries(first_wait=0.0)


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(f"id: {each['id']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)


def stream(body: bytes | CutOff) -> httpx.Response:
    content = httpx.ByteStream(body) if isinstance(body, bytes) else body
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=content)


class Unsteady:
    """A server that breaks in the middle of an event, is away, repeats itself, ends early, and at last sends all."""

    POSITIONS = ("0", "2", "2", "2", "4", "7")
    """The event after which each connection continues; the last is opened after the job was seen to have ended."""

    def __init__(self) -> None:
        self.positions: list[str] = []
        self._states = iter(["running", "succeeded"])

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs/job_1":
            return httpx.Response(200, json=job(state=next(self._states)))
        assert request.headers["accept"] == "text/event-stream"
        self.positions.append(request.headers["last-event-id"])
        match len(self.positions):
            case 1:
                return stream(CutOff(sse(*EVENTS[:2]) + sse(EVENTS[2])[:-30]))
            case 2:
                return httpx.Response(503, json=problem(503, "restarting"))
            case 3:
                raise httpx.ConnectError("refused")
            case 4:
                return stream(b": keep alive\n\n" + sse(*EVENTS[:4]))
            case 5:
                return stream(sse(*EVENTS[4:]))
        return stream(b": nothing more\n\n")


def test_a_broken_stream_is_continued_without_gap_or_repeat(connect: Connect) -> None:
    server = Unsteady()

    assert [each.id for each in connect(server.handle, NO_WAIT).jobs.events("job_1")] == [1, 2, 3, 4, 5, 6, 7]
    assert tuple(server.positions) == Unsteady.POSITIONS


def test_reading_may_begin_after_any_event(connect: Connect) -> None:
    positions: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs/job_1":
            return httpx.Response(200, json=job(state="failed"))
        positions.append(request.headers["last-event-id"])
        return stream(sse(*EVENTS[int(positions[-1]):]))

    assert [each.id for each in connect(handle).jobs.events("job_1", after=5)] == [6, 7]
    assert positions == ["5", "7"]


class Cut:
    """A server that sends five points of metrics, and breaks in the middle of the fourth."""

    POINTS = [{"name": "loss", "stage": 0, "step": step, "value": 1.0 / step} for step in range(1, 6)]

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/jobs/job_1":
            return httpx.Response(200, json=job(state="succeeded"))
        after = request.headers["last-event-id"]
        self.requests.append((request.url.query.decode(), after))
        messages = [f"id: {step}\ndata: {json.dumps(self.POINTS[step - 1])}\n\n".encode() for step in range(int(after) + 1, 6)]
        return stream(CutOff(b"".join(messages[:2]) + messages[2][:-30]) if after == "1" else b"".join(messages))


def test_metrics_continue_after_an_answer_and_over_a_broken_connection(connect: Connect) -> None:
    server = Cut()

    points = list(connect(server.handle, NO_WAIT).jobs.metric_points("job_1", names=["loss", "lr"], stage=0, after=1))

    assert [point.model_dump() for point in points] == [{**point} for point in Cut.POINTS[1:]]
    assert server.requests == [("names=loss%2Clr&stage=0", after) for after in ("1", "3", "5")]


def test_a_client_error_ends_a_stream_at_once() -> None:
    missing = httpx.Response(404, json=problem(404, "there is no job job_1"))

    with pytest.raises(tinyclip.NotFound, match="there is no job job_1"):
        list(client_of(lambda _: missing, Retries()).jobs.events("job_1"))


def test_a_server_that_stays_away_ends_a_stream_after_the_patience() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(tinyclip.CannotReachServer):
        list(client_of(handle, Retries()).jobs.events("job_1", patience=5.0))


def test_a_response_that_is_not_an_event_stream_is_a_server_that_cannot_be_reached() -> None:
    client = client_of(lambda _: httpx.Response(200, text="hello"), Retries())

    with pytest.raises(tinyclip.CannotReachServer, match="text/event-stream"):
        list(client.jobs.logs("job_1", patience=5.0))
