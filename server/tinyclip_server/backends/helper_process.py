"""A subprocess of the engine that answers JSON lines: one line in, one line out."""

import asyncio
import contextlib
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 64 << 20
"""Limit of one answer: a plan repeats the spec, whose class lists may be long."""


class HelperDied(Exception):
    """The process ended, or printed a line that is not an answer."""


class HelperProcess:
    """Starts the process, exchanges lines with it, and kills its process group. Not for concurrent use."""

    def __init__(
        self, command: Sequence[str], *, timeout_s: float, log: Path | None = None, environment: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """The standard error of the process is appended to `log`; without one it is the server's own.

        `memory_bytes` limits the private memory of the process and of each of its children.
        """
        self._command, self.timeout_s, self._log, self._memory_bytes = list(command), timeout_s, log, memory_bytes
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Raises OSError."""
        await self.kill()
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log.open("ab")) if self._log else None
            # A session of its own: a Ctrl-C at the terminal is for the server to handle. Its standard input ends with the server.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=MAX_LINE_BYTES,
                start_new_session=True, env=self._environment,
            )
        self._limit_memory(self._process.pid)

    def _limit_memory(self, pid: int) -> None:
        """Limit the memory that the process can write to (RLIMIT_DATA), on systems that can do that for another process.

        It holds before the first question, whose content is what may need too much.
        Address space (RLIMIT_AS) is no measure: an engine for GPUs maps many gigabytes of libraries and reserves more.
        """
        if self._memory_bytes is not None and hasattr(resource, "prlimit"):
            with contextlib.suppress(ProcessLookupError):  # it has ended, which the next read reports
                resource.prlimit(pid, resource.RLIMIT_DATA, (self._memory_bytes, self._memory_bytes))

    @contextlib.asynccontextmanager
    async def exchange(self) -> AsyncIterator[None]:
        """Limit a block of calls to the timeout, and kill the process if the block fails.

        Also if it is cancelled: the next caller must not get an abandoned answer. Raises TimeoutError.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                yield
        except BaseException:
            await self.kill()
            raise

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send a line and return the next one. Raises HelperDied, ConnectionError."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.read()

    async def read(self) -> dict[str, Any]:
        """Return the next line. Raises HelperDied."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            if not line:
                raise HelperDied(f"it ended with code {await self._process.wait()}")
            answer = json.loads(line)
        except ValueError as error:
            raise HelperDied(f"it printed something that is not an answer: {error}") from error
        if not isinstance(answer, dict):
            raise HelperDied("it printed something that is not an answer")
        return answer

    async def kill(self) -> None:
        """End the process and its children, and wait for it; nothing if there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if process.stdin:
            process.stdin.close()
