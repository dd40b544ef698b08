"""Imports files that users bring, each in a process of its own (`python -m tinyclip_workers.importing.convert`).

A file that takes all memory, runs into the time limit or crashes harms its process and nothing else. One import at a time: two
would need twice the memory.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pydantic import TypeAdapter
from tinyclip.schemas import FieldError

from tinyclip_server.backends.helper_process import HelperDied, HelperProcess
from tinyclip_server.backends.turns import Turns
from tinyclip_server.problems import InvalidInput, StorageFull, Unavailable

ADMITTED = 4
"""Imports of one project that are uploaded, wait or run; each may hold a file of the largest size on the disk."""

_field_errors = TypeAdapter(list[FieldError])


class ImportProcess:
    """The process of one import; the engine's module describes its lines."""

    def __init__(self, process: HelperProcess) -> None:
        self._process = process

    async def check(self, question: dict[str, Any]) -> None:
        """Read and check the file; nothing is written. Raises InvalidInput with the fields to change."""
        answer = await self._process.ask(question)
        _expect_memory(answer)
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="import_refused")
        if "checked" not in answer:
            raise HelperDied(f"it answered {str(answer)[:200]}")

    async def write(self, artifacts: str, name: str, version: int) -> dict[str, Any]:
        """Write the version and return its document. Raises StorageFull, InvalidInput."""
        answer = await self._process.ask({"artifacts": artifacts, "name": name, "version": version})
        _expect_memory(answer)
        if "failed" in answer:
            raise StorageFull(f"the version could not be written: {answer['failed']}", code="not_written")
        document = answer.get("document")
        if not isinstance(document, dict):
            raise HelperDied(f"it answered {str(answer)[:200]}")
        return document


class Importer:
    """Starts a process for each import, and ends it whatever happens."""

    def __init__(self, process: HelperProcess) -> None:
        self._process = process
        self._turns = Turns(1, admitted=ADMITTED, patience_s=process.timeout_s, work="importing")

    def admit(self, project: str) -> contextlib.AbstractAsyncContextManager[None]:
        """Count an import of a project, with its upload. Raises TooManyRequests."""
        return self._turns.admit(project)

    @contextlib.asynccontextmanager
    async def start(self, project: str) -> AsyncIterator[ImportProcess]:
        """Yield a process that is killed at the end; for an admitted import.

        Raises TooManyRequests, Unavailable, and InvalidInput for a file that the process dies of or takes too long for.
        """
        async with self._turns.turn(project):
            try:
                await self._process.start()
            except OSError as error:
                raise Unavailable(f"the importer does not run: {error}", code="importer_unavailable", retry_after=5) from error
            try:
                async with self._process.exchange():
                    yield ImportProcess(self._process)
            except TimeoutError:
                raise InvalidInput(
                    f"importing took longer than {self._process.timeout_s:g} s and was ended; raise "
                    "TINYCLIP_IMPORT_TIMEOUT_SECONDS", code="import_timeout",
                ) from None
            except (HelperDied, ConnectionError) as died:
                raise InvalidInput(
                    f"the process that read the file ended before it had an answer ({died}); it needs memory for about three "
                    "times the file, and its log has details", code="import_died",
                ) from died
            finally:
                await self._process.kill()


def _expect_memory(answer: dict[str, Any]) -> None:
    if answer.get("exhausted"):
        message = "importing takes more memory than TINYCLIP_IMPORT_MEMORY_BYTES allows; it needs about three times the file"
        raise InvalidInput(message, code="import_memory")
