"""A probe inside a server process: the largest lag of its event loop and its resident memory, asked for on standard input."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

INTERVAL_SECONDS = 0.002
ROOT = Path(__file__).parents[1]
MIB = 1 << 20
LONGEST_LAG_SECONDS = 0.1
LARGEST_GROWTH = 256 * MIB
TRIES = 3
LARGEST_ANSWER = 2 * MIB


async def report_load() -> None:
    """Answer each line on standard input with a line of JSON: the load since the line before.

    A lag is the shorter of the delay of a timer and the CPU time of the process meanwhile: a loop that something blocks uses
    CPU time, and one that waits for a busy machine does not.
    """
    lag = 0.0

    def answer() -> None:
        nonlocal lag
        for _ in sys.stdin:
            print(json.dumps({"lag_s": lag, **_memory()}), flush=True)
            lag = 0.0
            Path("/proc/self/clear_refs").write_text("5")  # the peak is that since now

    threading.Thread(target=answer, daemon=True).start()
    while True:
        began, cpu_began = time.monotonic(), time.process_time()
        await asyncio.sleep(INTERVAL_SECONDS)
        late, cpu = time.monotonic() - began - INTERVAL_SECONDS, time.process_time() - cpu_began
        lag = max(lag, min(late, cpu))


def _memory() -> dict[str, int]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"rss": int(lines["VmRSS"].split()[0]) << 10, "peak_rss": int(lines["VmHWM"].split()[0]) << 10}


@dataclass(frozen=True)
class Load:
    """The load of a process during a block."""

    lag_s: float
    growth: int
    """Bytes of resident memory at the peak, above those at the start."""


class ProbedProcess:
    """A server in its own process that runs `report_load`."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                text=True, env=environment, cwd=ROOT,
            )
        self._rss = 0

    def line(self) -> str:
        """Return the next line of output. Raises AssertionError with the log if the process has exited."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        assert found, self.log.read_text()
        return found

    def reset(self) -> None:
        self._rss = int(self._ask()["rss"])

    def load(self) -> Load:
        """Return the load since `reset`."""
        answer = self._ask()
        return Load(float(answer["lag_s"]), int(answer["peak_rss"]) - self._rss)

    def stop(self) -> None:
        with self.process:  # closes the pipes, and waits
            self.process.terminate()

    def _ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.line())
        return answer


def expect_small_load(
    process: ProbedProcess, send: Callable[[], httpx.Response], largest_answer: int = LARGEST_ANSWER
) -> httpx.Response:
    """Send a request. Raises AssertionError if it blocks the event loop, fills the memory or has a huge answer.

    One that blocks the loop does so each time; on a busy machine another thread of the server may delay the loop once.
    """
    for _ in range(TRIES):
        process.reset()
        answer = send()
        load = process.load()
        print(f"{answer.status_code}, {1000 * load.lag_s:.0f} ms, {load.growth / MIB:.0f} MiB, {len(answer.content):,} bytes")
        assert answer.status_code < 500
        assert load.growth < LARGEST_GROWTH
        assert len(answer.content) < largest_answer
        if load.lag_s < LONGEST_LAG_SECONDS:
            return answer
    raise AssertionError(f"each of {TRIES} requests blocked the event loop, the last one for {load.lag_s:.3f} s")


def filled(start: str, unit: str, end: str) -> Callable[[int], bytes]:
    """Return a function that makes `start`, as many units as fit into a size, and `end`; {#} in a unit is its number."""

    def body(size: int) -> bytes:
        count = (size - len(start) - len(end)) // (len(unit) + 4 * unit.count("{#}"))
        units = unit * count if "{#}" not in unit else "".join(unit.replace("{#}", str(i)) for i in range(count))
        return (start + units + end).encode()

    return body


def listed(start: str, unit: str, end: str) -> Callable[[int], bytes]:
    """Return the same with units that are separated by commas."""
    return filled(start, unit + ",", unit.replace("{#}", "last") + end)
