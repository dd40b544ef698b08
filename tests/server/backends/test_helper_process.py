"""Lines in, lines out, and nothing left running. How planner and importer use it is tested with their endpoints."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tinyclip_server.backends.helper_process import HelperDied, HelperProcess

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
WITH_CHILD = """
import json, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps({"child": child.pid}), flush=True)
time.sleep(600)
"""

Make = Callable[[str], HelperProcess]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[HelperProcess] = []

    def helper(code: str) -> HelperProcess:
        made.append(HelperProcess([sys.executable, "-c", code], timeout_s=30, log=tmp_path / "log"))
        return made[-1]

    yield helper
    for process in made:
        await process.kill()


async def test_a_line_in_and_a_line_out(make: Make) -> None:
    helper = make(ECHO)
    await helper.start()

    assert [await helper.ask({"n": number}) for number in (1, 2)] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(3)", "it ended with code 3"), ("print('hello')", "is not an answer: "),
        ("print('[1]')", "is not an answer$"), (f"print('x' * ({65 << 20}))", "is not an answer: "),
    ],
    ids=["exit", "text", "list", "too long"],
)
async def test_what_is_no_answer(make: Make, code: str, message: str) -> None:
    helper = make(code)
    await helper.start()

    with pytest.raises(HelperDied, match=message):
        await helper.read()


async def test_its_standard_error_is_appended_to_the_log(make: Make, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    helper = make("import sys; print('oops', file=sys.stderr)")
    await helper.start()

    with pytest.raises(HelperDied):
        await helper.read()

    assert (tmp_path / "log").read_text() == "before\noops\n"


async def test_killing_it_ends_its_children_too(make: Make) -> None:
    helper = make(WITH_CHILD)
    await helper.start()
    child = (await helper.read())["child"]

    await helper.kill()

    assert not helper.running
    deadline = time.monotonic() + 10
    while _is_alive(child):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_its_memory_is_limited_and_that_of_its_children(tmp_path: Path) -> None:
    allocate = "try:\n    bytearray(1 << 30)\nexcept MemoryError:\n    print('{\"refused\": true}', flush=True)\n"
    child = f"import subprocess\nsubprocess.run([sys.executable, '-c', {allocate!r}])"
    for work in (allocate, child):
        code = f"import sys\nsys.stdin.readline()\n{work}"
        helper = HelperProcess([sys.executable, "-c", code], timeout_s=30, log=tmp_path / "log", memory_bytes=512 << 20)
        await helper.start()

        assert await helper.ask({}) == {"refused": True}

        await helper.kill()


async def test_a_failed_exchange_kills_it(make: Make) -> None:
    helper = make(ECHO)
    await helper.start()

    with pytest.raises(RuntimeError):
        async with helper.exchange():
            raise RuntimeError

    assert not helper.running


async def test_a_cancelled_exchange_kills_it(make: Make) -> None:
    helper = make("import time; time.sleep(600)")
    await helper.start()

    async def exchange() -> None:
        async with helper.exchange():
            await helper.read()

    task = asyncio.create_task(exchange())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not helper.running


def _is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
