"""Run the engine on a file that a user brings: one process per file (`python -m tinyclip_workers.importing.convert`).

What the file does to its process (memory, time, a crash) it does to nobody else. One at a time: two would want twice the memory.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tinyclip.schemas import FieldError

from tinyclip_server.backends.planner import LINE_LIMIT, PlannerDied, read_line
from tinyclip_server.problems import InvalidInput, StorageFull, Unavailable

_field_errors = TypeAdapter(list[FieldError])


class Conversation:
    """With the process of one import; its lines are described in the engine's `importing.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def check(self, question: dict[str, Any]) -> None:
        """Have the file read and understood; nothing is written. Raises InvalidInput with the fields to change."""
        answer = await self._ask(question)
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="import_refused")
        if "checked" not in answer:
            raise PlannerDied(f"it answered {str(answer)[:200]}")

    async def write(self, artifacts: str, name: str, version: int) -> dict[str, Any]:
        """Have the version written; its document. Raises StorageFull."""
        answer = await self._ask({"artifacts": artifacts, "name": name, "version": version})
        if "failed" in answer:
            raise StorageFull(f"the version could not be written: {answer['failed']}", code="not_written")
        document = answer.get("document")
        if not isinstance(document, dict):
            raise PlannerDied(f"it answered {str(answer)[:200]}")
        return document

    async def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        await self._process.stdin.drain()
        return await read_line(self._process)


class Converter:
    """Starts a process an import, and ends it whatever happens."""

    def __init__(
        self, command: Sequence[str], *, timeout_s: float, log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """What the process says beside its answers goes to `log`, or to our own standard error."""
        self._command, self._timeout_s, self._log = list(command), timeout_s, log
        self._environment = {**os.environ, **(environment or {})}
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """A process for one import, killed at the end. Raises InvalidInput for a file that it dies of or takes too long for."""
        async with self._turn:
            process = await self._start()
            try:
                async with asyncio.timeout(self._timeout_s):
                    yield Conversation(process)
            except TimeoutError:
                raise InvalidInput(
                    f"importing took longer than {self._timeout_s:g} s and was ended; raise TINYCLIP_IMPORT_TIMEOUT_SECONDS",
                    code="import_timeout",
                ) from None
            except (PlannerDied, ConnectionError) as died:
                raise InvalidInput(
                    f"the process that read the file ended before it had an answer ({died}); it needs memory for about three "
                    "times the file, and its log says more", code="import_died",
                ) from died
            finally:
                await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log.open("ab")) if self._log else None
            try:
                return await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                    limit=LINE_LIMIT, start_new_session=True, env=self._environment,
                )
            except OSError as error:
                raise Unavailable(f"the importer does not run: {error}", code="importer_unavailable", retry_after=5) from error


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    if process.stdin:
        process.stdin.close()
