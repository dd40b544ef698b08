"""Watching a job and waiting for its end."""

import httpx
import pytest
import tinyclip

from tests.client.clients import Connect
from tests.client.conftest import Clock
from tests.client.documents import job


class LongPolls:
    """A server that answers a poll once the job differs from the state that the tag names."""

    def __init__(self) -> None:
        self.polls: list[tuple[str | None, str | None]] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        tag = request.headers.get("if-none-match")
        self.polls.append((tag, request.url.params.get("wait")))
        if len(self.polls) == 2:
            return httpx.Response(304)
        state, next_tag = {None: ("queued", "1"), '"1"': ("running", "2"), '"2"': ("succeeded", "3")}[tag]
        return httpx.Response(200, json=job(state=state), headers={"ETag": f'"{next_tag}"'})


def test_watch_yields_each_change_once(connect: Connect) -> None:
    server = LongPolls()

    assert [each.state for each in connect(server.handle).jobs.watch("job_1")] == ["queued", "running", "succeeded"]
    assert server.polls == [(None, None), ('"1"', "25"), ('"1"', "25"), ('"2"', "25")]


def test_wait_returns_the_last_state(connect: Connect) -> None:
    assert connect(LongPolls().handle).jobs.wait("job_1").state == "succeeded"


def test_wait_ends_after_its_timeout(connect: Connect, clock: Clock) -> None:
    client = connect(lambda request: httpx.Response(200, json=job(state="running")))

    with pytest.raises(tinyclip.WaitTimeout, match="job_1 has not ended after 10 s; only the waiting ended, not the work"):
        client.jobs.wait("job_1", timeout=10.0)

    assert sum(clock.sleeps) == 10.0
