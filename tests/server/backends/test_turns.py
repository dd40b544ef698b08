"""Turns of projects: limited, alternating, and released whatever happens."""

import asyncio

import pytest
from tinyclip_server.backends.turns import Turns
from tinyclip_server.problems import TooManyRequests


class Work:
    """Requests that hold their turn until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.began, self.go = turns, list[str](), asyncio.Semaphore(0)

    async def request(self, project: str, name: str) -> None:
        async with self.turns.admit(project), self.turns.turn(project):
            self.began.append(name)
            await self.go.acquire()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_projects_alternate_and_hold_one_slot_each() -> None:
    work = Work(Turns(1, admitted=8, patience_s=30, work="planning"))

    async with asyncio.TaskGroup() as group:
        for name in ("a1", "a2", "a3", "b1", "b2"):
            group.create_task(work.request(name[0], name))
        for _ in range(5):
            await settle()
            work.go.release()

    assert work.began == ["a1", "b1", "a2", "b2", "a3"]


async def test_a_slow_project_leaves_the_other_slot_to_others() -> None:
    work = Work(Turns(2, admitted=8, patience_s=30, work="planning"))

    async with asyncio.TaskGroup() as group:
        for name in ("a1", "a2", "b1"):
            group.create_task(work.request(name[0], name))
        await settle()
        began = list(work.began)
        for _ in range(3):
            work.go.release()

    assert began == ["a1", "b1"]


async def test_requests_beyond_the_limit_of_a_project_are_refused_at_once() -> None:
    work = Work(Turns(1, admitted=2, patience_s=30, work="planning"))

    async with asyncio.TaskGroup() as group:
        for name in ("a1", "a2", "b1"):
            group.create_task(work.request(name[0], name))
        await settle()
        with pytest.raises(TooManyRequests, match="2 requests of this project wait for planning") as refused:
            await work.request("a", "a3")
        for _ in range(3):
            work.go.release()

    assert (refused.value.code, refused.value.retry_after) == ("busy", 5)
    assert sorted(work.began) == ["a1", "a2", "b1"]


async def test_a_request_that_waits_too_long_is_refused_and_keeps_no_slot() -> None:
    work = Work(Turns(1, admitted=8, patience_s=0.05, work="planning"))

    async with asyncio.TaskGroup() as group:
        group.create_task(work.request("a", "a1"))
        await settle()
        with pytest.raises(TooManyRequests, match="takes longer than"):
            await work.request("b", "b1")
        work.go.release()
        work.go.release()
        await settle()
        await work.request("b", "b2")

    assert work.began == ["a1", "b2"]


async def test_a_cancelled_request_keeps_no_slot() -> None:
    work = Work(Turns(1, admitted=1, patience_s=30, work="planning"))
    task = asyncio.create_task(work.request("a", "a1"))
    await settle()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    work.go.release()
    await work.request("a", "a2")

    assert work.began == ["a1", "a2"]
