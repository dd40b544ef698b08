"""Search of jobs and of log lines, whose cost is bounded by the rows that one page looks at."""

from typing import Any

import pytest
from tinyclip_server.http import streams
from tinyclip_server.jobs import repository

from tests.server.events import Worker, log_line
from tests.server.service import Service, on_both_databases


async def every_page(service: Service, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    pages, token = [], None
    while not pages or token:
        response = await service.http.get(path, params={**query, **({"page_token": token} if token else {})})
        assert response.status_code == 200, response.text
        pages.append(response.json()["items"])
        token = response.json()["next_page_token"]
    return pages


@on_both_databases
class TestJobs:
    async def test_name_id_and_values_of_labels_are_searched(self, service: Service) -> None:
        a = await service.submit(name="emoji-small", labels={"team": "Übersetzung 100%/x"})
        b = await service.submit(name="shapes", labels={"emoji": "x_y", "other": "z"})

        async def found(text: str) -> list[str]:
            return [job["id"] for job in await service.items("/v1/jobs", search=text)]

        assert await found("MOJI") == [a["id"]]
        assert await found("Übersetz") == await found("ÜBERSETZ") == [a["id"]]
        assert await found(b["id"][4:].upper()) == [b["id"]]
        assert [await found(text) for text in ("0%/", "x_y", "0_")] == [[a["id"]], [b["id"]], []]
        assert await found("") == [b["id"], a["id"]]

    async def test_other_filters_hold_too(self, service: Service) -> None:
        a, b = [await service.submit(name="emoji", labels={"run": run}) for run in "12"]
        await service.http.post(f"/v1/jobs/{b['id']}/cancel")

        assert [job["id"] for job in await service.items("/v1/jobs", search="emo", state="queued")] == [a["id"]]

    async def test_a_page_looks_at_a_number_of_jobs_and_the_next_goes_on(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repository, "SEARCHED_JOBS", 2)
        ids = [(await service.submit(name=name))["id"] for name in ("rare", "rare", "other", "other", "other", "rare")]

        pages = await every_page(service, "/v1/jobs", search="rare", page_size=1)

        assert [job["id"] for page in pages for job in page] == [ids[5], ids[1], ids[0]]
        assert [] in pages


@on_both_databases
class TestLogs:
    async def logged(self, service: Service) -> Worker:
        worker = await service.running()
        lines = [log_line(f"Step {number}") for number in range(1, 11)]
        for number in (3, 7, 9):
            lines[number] = {"type": "log", "message": f"NaN at {number}", "data": {"level": "warning", "source": "driver"}}
        worker.emit(*lines, {"type": "log", "message": "nan again", "data": {"level": "error", "source": "driver"}})
        await service.tick()
        return worker

    async def test_pages_have_the_lines_that_match(self, service: Service) -> None:
        logs = f"/v1/jobs/{(await self.logged(service)).job}/logs"

        async def found(**query: Any) -> list[int]:
            return [line["id"] for page in await every_page(service, logs, **query) for line in page]

        assert await found(search="nan") == await found(level=["warning", "error"]) == [4, 8, 10, 11]
        assert await found(search="nan", page_size=1) == [4, 8, 10, 11]
        assert await found(search="NAN", level="error") == [11]
        assert (await found(search="step 1"), await found(search="step_1")) == ([1], [])

    async def test_a_tail_has_the_last_lines_that_match(self, service: Service) -> None:
        logs = f"/v1/jobs/{(await self.logged(service)).job}/logs"

        assert [line["id"] for line in await service.items(logs, search="nan", tail=2)] == [10, 11]
        assert [line["id"] for line in await service.items(logs, level="info", tail=2)] == [7, 9]

    async def test_a_page_looks_at_a_number_of_lines_and_the_next_goes_on(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(repository, "SEARCHED_LINES", 3)
        logs = f"/v1/jobs/{(await self.logged(service)).job}/logs"

        pages = await every_page(service, logs, search="nan")

        assert [[line["id"] for line in page] for page in pages] == [[], [4], [8], [10, 11]]
        assert [line["id"] for line in await service.items(logs, search="nan", tail=9)] == [10, 11]


@pytest.mark.parametrize(
    ("query", "last", "expected"),
    [("search=nan", None, [2, 4]), ("search=nan", 2, [4]), ("level=info", None, [1, 3]), ("search=nan&tail=1", None, [4]),
     ("search=nothing&tail=1", None, [])],
)  # fmt: skip
async def test_a_stream_has_the_lines_that_match(
    service: Service, monkeypatch: pytest.MonkeyPatch, query: str, last: int | None, expected: list[int]
) -> None:
    monkeypatch.setattr(streams, "POLL_SECONDS", 0.01)
    worker = await service.running()
    loud = {"level": "warning", "source": "driver"}
    worker.emit(log_line("a"), {"type": "log", "message": "NaN", "data": loud}, log_line("b"))
    worker.emit({"type": "log", "message": "nan", "data": loud})
    worker.succeed()
    await service.tick()

    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last else {})}
    response = await service.http.get(f"/v1/jobs/{worker.job}/logs?{query}", headers=headers)

    numbers = [int(line.removeprefix("id:")) for line in response.text.splitlines() if line.startswith("id:")]
    assert numbers == expected
