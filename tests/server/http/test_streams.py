"""Server-sent events over a real socket: live, resumable, and closed at the end of the job."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from tinyclip_server.http import streams
from tinyclip_server.jobs import repository

from tests.server.events import log_line
from tests.server.service import Service

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def _short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POLL_SECONDS", 0.02)


@pytest.fixture
async def url(service: Service) -> AsyncIterator[str]:
    """The application behind a real server: only there does a response arrive in pieces."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(service.app, lifespan="off", log_config=None))
        running = asyncio.create_task(server.serve(sockets=[bound]))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        await running


async def read(url: str, count: int | None = None, **headers: str) -> list[dict[str, Any]]:
    """Return the documents of `count` messages, or of all until the server closes the stream."""
    documents = []
    async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", url, headers={**EVENTS, **headers}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        number = None
        async for line in response.aiter_lines():
            if line.startswith("id:"):
                number = int(line.removeprefix("id:"))
            if line.startswith("data:"):
                document = json.loads(line.removeprefix("data:"))
                assert document["id"] == number
                documents.append(document)
                if len(documents) == count:
                    return documents
    return documents


async def test_the_stream_of_an_ended_job_has_all_events_and_closes(service: Service, url: str) -> None:
    job = await service.succeeded("emoji")

    documents = await read(f"{url}/v1/jobs/{job['id']}/events")

    assert documents == await service.events(job["id"])


async def test_a_stream_resumes_without_gap_or_repeat(service: Service, url: str) -> None:
    job = await service.succeeded("emoji")
    events = f"{url}/v1/jobs/{job['id']}/events"

    first = await read(events, count=4)
    rest = await read(events, **{"Last-Event-ID": "4"})

    assert [document["id"] for document in first + rest] == list(range(1, len(first + rest) + 1))
    assert rest[-1]["type"] == "job.succeeded"


async def test_events_are_streamed_as_they_are_recorded(service: Service, url: str) -> None:
    worker = await service.running()
    last = len(await service.events(worker.job))
    watching = asyncio.create_task(read(f"{url}/v1/jobs/{worker.job}/events", **{"Last-Event-ID": str(last)}))
    await asyncio.sleep(0.05)

    worker.step(3, loss=1.0)
    await service.tick()
    worker.succeed()
    await service.tick()

    documents = await asyncio.wait_for(watching, 10)
    assert [document["type"] for document in documents][:2] == ["progress", "stage.finished"]
    assert documents[-1]["type"] == "job.succeeded"


async def test_several_batches_are_streamed(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip_server.http.streams.BATCH", 3)
    job = await service.succeeded("emoji")

    documents = await read(f"{url}/v1/jobs/{job['id']}/events")

    assert len(documents) == len(await service.events(job["id"]))


async def test_log_lines_stream_from_the_tail(service: Service, url: str) -> None:
    worker = await service.running()
    worker.emit(*(log_line(f"line {n}") for n in range(1, 11)))
    worker.succeed()
    await service.tick()

    documents = await read(f"{url}/v1/jobs/{worker.job}/logs?tail=2")

    assert [document["message"] for document in documents] == ["line 9", "line 10"]


async def test_events_stream_from_the_tail(service: Service, url: str) -> None:
    job = await service.succeeded("emoji")
    known = [event["id"] for event in await service.events(job["id"])]

    tail = await read(f"{url}/v1/jobs/{job['id']}/events?tail=2")
    resumed = await read(f"{url}/v1/jobs/{job['id']}/events?tail=2", **{"Last-Event-ID": str(known[-4])})

    assert [document["id"] for document in tail] == known[-2:]
    assert [document["id"] for document in resumed] == known[-3:]


async def test_an_idle_stream_is_kept_alive(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyclip_server.http.streams.KEEPALIVE_SECONDS", 0.05)
    worker = await service.running()
    last = len(await service.events(worker.job))

    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", f"{url}/v1/jobs/{worker.job}/events", headers={**EVENTS, "Last-Event-ID": str(last)}) as response,
    ):
        line = await anext(response.aiter_lines())

    assert line.startswith(": ping")


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "9" * 40])
async def test_an_invalid_event_id_is_refused(service: Service, url: str, bad: str) -> None:
    job = await service.submit()

    async with httpx.AsyncClient() as client:
        response = await client.get(f"{url}/v1/jobs/{job['id']}/events", headers={**EVENTS, "Last-Event-ID": bad})

    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/Last-Event-ID"


async def test_an_unknown_jobs_stream_is_not_found(service: Service, url: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{url}/v1/jobs/job_none/events", headers=EVENTS)

    assert response.status_code == 404


async def test_all_readers_share_the_reads_of_the_database(
    service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, clock = 0, 0.0
    fetch = repository.events_after

    async def events_after(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await fetch(*arguments)

    monkeypatch.setattr(repository, "events_after", events_after)
    monkeypatch.setattr(streams, "time", SimpleNamespace(monotonic=lambda: clock))
    worker = await service.running()
    events = f"{url}/v1/jobs/{worker.job}/events"
    watching = [asyncio.create_task(read(events)) for _ in range(30)]
    for step in range(1, 4):
        worker.step(step, loss=1.0)
        await service.tick()
        clock += streams.POLL_SECONDS
        await asyncio.sleep(0.05)
    worker.succeed()
    await service.tick()
    clock += streams.POLL_SECONDS
    seen = await asyncio.gather(*watching)
    shared = reads

    assert seen == [await service.events(worker.job)] * 30
    assert shared <= 5  # the first one, and one for each time that the clock advances


async def test_a_lagging_reader_misses_nothing(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BUFFERED_LINES", 3)
    monkeypatch.setattr(streams, "BATCH", 2)
    worker = await service.running()
    events = f"{url}/v1/jobs/{worker.job}/events"
    first = asyncio.create_task(read(events))
    worker.emit(*({"type": "note", "message": str(number)} for number in range(20)))
    await service.tick()
    await asyncio.sleep(0.1)
    late = asyncio.create_task(read(events))
    ahead = asyncio.create_task(read(events, **{"Last-Event-ID": "23"}))
    worker.succeed()
    await service.tick()

    every = await service.events(worker.job)
    assert await first == await late == every
    assert await ahead == every[23:]


async def test_streams_of_one_reader_are_limited(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    job = (await service.submit())["id"]
    events = f"{url}/v1/jobs/{job}/events"

    async with httpx.AsyncClient(timeout=10) as client:
        async with client.stream("GET", events, headers=EVENTS) as first:
            lines = first.aiter_lines()  # kept: httpx closes a response with its iterator
            await anext(lines)
            refused = await client.get(events, headers=EVENTS)
        for _ in range(100):  # the server notices a client that is gone within moments
            async with client.stream("GET", events, headers=EVENTS) as again:
                if again.status_code == 200:
                    break
            await asyncio.sleep(0.05)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert again.status_code == 200


async def test_simultaneous_streams_are_limited(service: Service, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 3)
    job = (await service.submit())["id"]
    answered = asyncio.Barrier(12)

    async def status(client: httpx.AsyncClient) -> int:
        async with client.stream("GET", f"{url}/v1/jobs/{job}/events", headers=EVENTS) as response:
            await answered.wait()  # all streams are open at once
            return response.status_code

    async with httpx.AsyncClient(timeout=10) as client:
        statuses = await asyncio.gather(*(status(client) for _ in range(12)))

    assert sorted(statuses) == [200] * 3 + [429] * 9
