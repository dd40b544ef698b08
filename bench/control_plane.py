"""Load test of the control plane: `python bench/control_plane.py [--jobs 100000] [--watchers 200] [--submits 400] [--json FILE]`.

Uses a temporary PostgreSQL and a real server process (`tinyclip-server up`), with fakes for Ray and the planner, which are not
measured. Measures the first page of the list and a distant one, many watchers of one job, and submits compared with a bare
insert. Compared requests alternate in one run, so that other load on the machine affects both alike.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from control_plane_parts import Testbed, multiply, start_testbed
from rich.console import Console
from rich.table import Table

from tests.server.documents import spec
from tests.server.fakes import Worker

PAGE, FAR = 50, 1_000
EVENTS = 300
CUT_OFF_AFTER = 100
"""Events after which every second watcher disconnects once, and resumes with `Last-Event-ID`."""
CLIENTS = 8
TARGETS = {"page": 1.5, "submit": 3.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--submits", type=int, default=400)
    parser.add_argument("--looks", type=int, default=40, help="requests for each of the two pages")
    parser.add_argument("--json", type=Path, help="file for the results, as one line")
    parser.add_argument("--data-dir", type=Path, help="data folder of the server, which is kept, with its log")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, start_testbed(arguments.data_dir or Path(folder)) as testbed:
        results = asyncio.run(measure(testbed, arguments))
    results = {"arguments": {k: v for k, v in vars(arguments).items() if k not in ("json", "data_dir")}, **results}
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results) + "\n")


async def measure(testbed: Testbed, arguments: argparse.Namespace) -> dict[str, Any]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600), connector=aiohttp.TCPConnector(limit=0)) as http:
        first = await submit(http, testbed.server, 0)
        await multiply(testbed.database, first["id"], arguments.jobs)
        return {  # in this order: jobs of the submits never end, and occupy the running slots
            "watchers": await watchers(http, testbed, arguments.watchers),
            "pages": await pages(http, testbed.server, arguments),
            "submits": await submits(http, testbed, arguments.submits),
        }


async def submit(http: aiohttp.ClientSession, url: str, number: int, **changes: Any) -> dict[str, Any]:
    async with http.post(f"{url}/v1/jobs", json=spec(name=f"bench-{number % 20}", **changes)) as answer:
        assert answer.status == 201, await answer.text()
        found: dict[str, Any] = await answer.json()
    return found


async def submits(http: aiohttp.ClientSession, testbed: Testbed, count: int) -> dict[str, Any]:
    """Submit in rounds, alternating between the server and the bare one; measure latency and CPU time per request.

    The CPU time of the server's background loops is measured during the other one's rounds, and subtracted.
    """
    taken: dict[str, list[float]] = {testbed.bare: [], testbed.server: []}
    spent, worked, idled = dict.fromkeys(taken, 0.0), dict.fromkeys(taken, 0.0), 0.0
    for turn in range(-1, 8):  # the first round fills caches and opens connections
        for url in taken:
            begin, cpu, idle = time.perf_counter(), testbed.cpu_seconds(url), testbed.cpu_seconds(testbed.server)
            seconds = await crowd(lambda number, url=url: submit(http, url, number), count // 8)
            if turn >= 0:
                spent[url] += time.perf_counter() - begin
                worked[url] += testbed.cpu_seconds(url) - cpu
                idled += testbed.cpu_seconds(testbed.server) - idle if url == testbed.bare else 0.0
                taken[url] += seconds
    loops = idled / spent[testbed.bare]
    worked[testbed.server] -= loops * spent[testbed.server]
    bare, ours = (
        {
            **spread(taken[url]), "per_second": round(len(taken[url]) / spent[url], 1),
            "cpu_ms": round(1000 * worked[url] / len(taken[url]), 2),
        }
        for url in taken
    )
    ratio = round(bare["per_second"] / ours["per_second"], 2)
    return {"bare": bare, "ours": ours, "ratio": ratio, "loops_cpu_ms_per_second": round(1000 * loops, 1)}


async def crowd(work: Callable[[int], Awaitable[Any]], count: int) -> list[float]:
    """Run `work` `count` times in CLIENTS concurrent tasks; return the seconds of each."""
    left, seconds = iter(range(count)), []

    async def client() -> None:
        for number in left:
            begin = time.perf_counter()
            await work(number)
            seconds.append(time.perf_counter() - begin)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return seconds


async def pages(http: aiohttp.ClientSession, url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the first page and the thousandth (or the last full one), alternating."""
    far = min(FAR, arguments.jobs // PAGE)
    token, skipped = None, 0
    while skipped < (far - 1) * PAGE:
        size = min(500, (far - 1) * PAGE - skipped)
        document = await page(http, url, size, token)
        token, skipped = document["next_page_token"], skipped + size
    taken: dict[str, list[float]] = {"first": [], "far": []}
    for _ in range(arguments.looks):
        for name, after in (("first", None), ("far", token)):
            begin = time.perf_counter()
            assert len((await page(http, url, PAGE, after))["items"]) == PAGE
            taken[name].append(time.perf_counter() - begin)
    first, distant = spread(taken["first"]), spread(taken["far"])
    return {"far_page": far, "first": first, "far": distant, "ratio": round(distant["median_ms"] / first["median_ms"], 2)}


async def page(http: aiohttp.ClientSession, url: str, size: int, token: str | None) -> dict[str, Any]:
    query = {"page_size": size, **({"page_token": token} if token else {})}
    async with http.get(f"{url}/v1/jobs", params=query) as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def watchers(http: aiohttp.ClientSession, testbed: Testbed, count: int) -> dict[str, Any]:
    """Let `count` watchers follow one job to its end; count missed and repeated events, and measure their delay."""
    job = await submit(http, testbed.server, 0)
    async with http.patch(f"{testbed.server}/v1/jobs/{job['id']}", json={"priority": 1000}) as answer:
        assert answer.status == 200
    watching = [asyncio.create_task(watch(http, testbed.server, job["id"], cut=n % 2 == 1)) for n in range(count)]
    while not (job := await get(http, testbed.server, job["id"]))["attempt"]:  # noqa: ASYNC110 - it starts in another process
        await asyncio.sleep(0.2)
    worker = Worker(testbed.artifacts, job)
    worker.start()
    for step in range(EVENTS):
        worker.tell({"type": "note", "message": f"step {step}", "data": {"at": time.time()}})
        await asyncio.sleep(0.02)
    worker.succeed()
    seen = await asyncio.gather(*watching)
    last = (await get(http, testbed.server, job["id"]))["state"], max(max(ids) for ids, _ in seen)
    assert last[0] == "succeeded"
    expected = list(range(1, last[1] + 1))
    lags = sorted(lag for _, lags in seen for lag in lags)
    return {
        "events": last[1], "missed": sum(len(set(expected) - set(ids)) for ids, _ in seen),
        "repeated": sum(len(ids) - len(set(ids)) for ids, _ in seen), "in_order": all(ids == sorted(ids) for ids, _ in seen),
        "lag_median_ms": round(1000 * statistics.median(lags)), "lag_p99_ms": round(1000 * lags[int(0.99 * len(lags))]),
    }


async def get(http: aiohttp.ClientSession, url: str, job: str) -> dict[str, Any]:
    async with http.get(f"{url}/v1/jobs/{job}") as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def watch(http: aiohttp.ClientSession, url: str, job: str, *, cut: bool) -> tuple[list[int], list[float]]:
    """Follow a job's events to its end; return their numbers, and the seconds from the worker's report to their arrival."""
    ids: list[int] = []
    lags: list[float] = []
    ended = False
    while not ended:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(ids[-1] if ids else 0)}
        async with http.get(f"{url}/v1/jobs/{job}/events", headers=headers) as answer:
            assert answer.status == 200
            async for line in answer.content:
                if line.startswith(b"id:"):
                    ids.append(int(line[3:]))
                elif line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    ended = event["type"] == "job.succeeded"
                    if "at" in event["data"]:
                        lags.append(time.time() - event["data"]["at"])
                elif not line.strip() and cut and len(ids) >= CUT_OFF_AFTER:
                    cut = False
                    break
    return ids, lags


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * second for second in seconds)
    return {"median_ms": round(statistics.median(ordered), 1), "p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))], 1)}


def show(results: dict[str, Any]) -> None:
    table = Table("what", "measured", "compared with", "ratio", "target", title=f"{datetime.now(UTC):%Y-%m-%d}")
    shown, of, seen = results["pages"], results["submits"], results["watchers"]
    table.add_row(
        f"page {shown['far_page']} of {results['arguments']['jobs']:,} jobs", f"{shown['far']['median_ms']} ms",
        f"page 1: {shown['first']['median_ms']} ms", str(shown["ratio"]), f"{TARGETS['page']}",
    )
    for what in ("per_second", "median_ms", "p99_ms", "cpu_ms"):
        ratio = of["ratio"] if what == "per_second" else round(of["ours"][what] / of["bare"][what], 2)
        ours, bare = str(of["ours"][what]), f"bare insert: {of['bare'][what]}"
        table.add_row(f"submit, {what}", ours, bare, str(ratio), f"{TARGETS['submit']}")
    table.add_row(
        f"{results['arguments']['watchers']} watchers of {seen['events']} events",
        f"{seen['missed']} missed, {seen['repeated']} repeated, in order: {seen['in_order']}",
        f"{seen['lag_median_ms']} ms after the report, p99 {seen['lag_p99_ms']} ms", "", "0 and 0",
    )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
