"""Watching a job and waiting for its end, its attempts and its spec, and searches."""

import httpx
import pytest
import tinyclip

from tests.client.clients import Connect
from tests.client.conftest import Clock
from tests.client.documents import job, page


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


def test_attempts_are_those_of_all_pages(connect: Connect) -> None:
    def attempt(number: int) -> dict[str, object]:
        return {
            "number": number, "ray_submission_id": f"tc-job_1-a{number}", "outcome": "lost", "cause": "its node was lost",
            "created_at": "2026-01-02T03:04:05Z", "finished_at": None,
        }

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/jobs/job_1/attempts"
        second = request.url.params.get("page_token") == "two"
        return httpx.Response(200, json=page(attempt(2)) if second else page(attempt(1), next_page_token="two"))

    assert [(each.number, each.cause) for each in connect(handle).jobs.attempts("job_1")] == [
        (1, "its node was lost"), (2, "its node was lost"),
    ]  # fmt: skip


def test_a_spec_as_it_was_sent_and_as_workers_get_it(connect: Connect) -> None:
    specs = {"submitted": {"name": "a"}, "resolved": {"name": "a", "seed": 0}}

    assert connect(lambda request: httpx.Response(200, json=specs)).jobs.spec("job_1").model_dump() == specs


def test_text_and_levels_are_searched_by_the_server(connect: Connect) -> None:
    sent: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(f"{request.url.path}?{request.url.query.decode()}")
        return httpx.Response(200, json=page())

    client = connect(handle)
    list(client.jobs.list(search="a", parent="sea_1"))
    client.jobs.logs_page("job_1", search="nan", level=["warning", "error"])

    assert sent == ["/v1/jobs?search=a&parent=sea_1", "/v1/jobs/job_1/logs?search=nan&level=warning&level=error"]
