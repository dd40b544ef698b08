"""Asks the engine what a spec would do, through one warm process of it (`python -m tinyclip_workers.plan.planner`).

One JSON line each way: `{"id", "spec"}` in, `{"id", "plan"}` or `{"id", "errors"}` out, after a first `{"ready": true}`.
The process is started when first needed, and again after it died.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.schemas import FieldError, JobSpec, Plan

from tinyclip_server.problems import InvalidInput, Unavailable

logger = logging.getLogger(__name__)

LINE_LIMIT = 64 << 20
"""Bytes of one answer: a plan repeats the spec, whose class lists may be long."""

_field_errors = TypeAdapter(list[FieldError])


class PlannerDied(Exception):
    """The process ended, or said something that is no answer, while somebody waited."""


class Planner:
    """One question at a time: planning reads shards and may load a teacher, so two at once only slow each other down."""

    def __init__(
        self, command: Sequence[str], *, timeout_s: float, log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """What the process says beside its answers goes to `log`, or to our own standard error."""
        self._command, self._timeout_s, self._log = list(command), timeout_s, log
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def plan(self, spec: JobSpec) -> Plan:
        """The plan of a spec. Raises InvalidInput for an impossible one and Unavailable if the engine cannot answer."""
        async with self._turn:
            answer = await self._answer({"id": secrets.token_hex(8), "spec": spec.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_spec")
        return Plan.model_validate(answer["plan"])

    async def check_evaluation(self, request: EvaluationRequest) -> list[str]:
        """What is odd about an evaluation. Raises InvalidInput for an impossible one, Unavailable if the engine cannot answer."""
        async with self._turn:
            answer = await self._answer({"id": secrets.token_hex(8), "evaluation": request.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_evaluation")
        return [str(warning) for warning in answer["warnings"]]

    async def warm_up(self) -> None:
        """Start the process ahead of the first question; failing is only logged."""
        async with self._turn:
            try:
                await asyncio.wait_for(self._running(), self._timeout_s)
            except (PlannerDied, OSError, TimeoutError) as error:
                logger.warning("the planner did not start: %s", error or "timed out")
                await self._end()

    async def close(self) -> None:
        await self._end()

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        for last_try in (False, True):
            try:
                return await asyncio.wait_for(self._ask(question), self._timeout_s)
            except TimeoutError:
                await self._end()
                raise Unavailable(
                    f"planning took longer than {self._timeout_s:g} s; are the shards and the teacher reachable?",
                    code="planner_timeout", retry_after=5,
                ) from None
            except (PlannerDied, OSError) as error:
                await self._end()
                if last_try:
                    raise Unavailable(f"the planner does not run: {error}", code="planner_unavailable", retry_after=5) from error
                logger.warning("the planner died (%s); starting it again", error)
            except BaseException:  # a caller that left in mid-answer must not leave the answer to the next one
                await self._end()
                raise
        raise AssertionError("unreachable")

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = await self._running()
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(question).encode() + b"\n")
        await process.stdin.drain()
        answer = await read_line(process)
        if answer.get("id") != question["id"]:
            raise PlannerDied(f"it answered {str(answer)[:200]}")
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log.open("ab")) if self._log else None
            # In a session of its own: a Ctrl-C at the terminal is for us to handle. Its standard input ends with us.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=LINE_LIMIT,
                start_new_session=True, env=self._environment,
            )
        if (await read_line(self._process)).get("ready") is not True:
            raise PlannerDied("its first line was not {\"ready\": true}")
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if process.stdin:
            process.stdin.close()


async def read_line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The next JSON line of a process of the engine. Raises PlannerDied."""
    assert process.stdout
    try:
        line = await process.stdout.readline()
        if not line:
            raise PlannerDied(f"it ended with code {await process.wait()}")
        answer = json.loads(line)
    except ValueError as error:
        raise PlannerDied(f"it printed something that is not an answer: {error}") from error
    if not isinstance(answer, dict):
        raise PlannerDied("it printed something that is not an answer")
    return answer
