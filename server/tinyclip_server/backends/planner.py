"""Plans specs and checks evaluations with the engine, in one warm process (`python -m tinyclip_workers.plan.planner`).

One JSON line each way: `{"id", "spec"}` in, `{"id", "plan"}` or `{"id", "errors"}` out, after a first `{"ready": true}`.
The process is started when first needed, and again after it died.
"""

import asyncio
import logging
import secrets
from typing import Any

from pydantic import TypeAdapter
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.schemas import FieldError, JobSpec, Plan

from tinyclip_server.backends.helper_process import HelperDied, HelperProcess
from tinyclip_server.problems import InvalidInput, Unavailable

logger = logging.getLogger(__name__)

_field_errors = TypeAdapter(list[FieldError])


class Planner:
    """One question at a time: planning reads shards and may load a teacher, so two at once only slow each other down."""

    def __init__(self, process: HelperProcess) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def plan(self, spec: JobSpec) -> Plan:
        """Return the plan of a spec. Raises InvalidInput for an impossible one, Unavailable if the engine cannot answer."""
        answer = await self._answer({"spec": spec.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_spec")
        return Plan.model_validate(answer["plan"])

    async def check_evaluation(self, request: EvaluationRequest) -> list[str]:
        """Return warnings about an evaluation. Raises InvalidInput, Unavailable as `plan`."""
        answer = await self._answer({"evaluation": request.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_evaluation")
        return [str(warning) for warning in answer["warnings"]]

    async def warm_up(self) -> None:
        """Start the process ahead of the first question; a failure is only logged."""
        async with self._turn:
            try:
                async with self._process.exchange():
                    await self._ensure_running()
            except (HelperDied, OSError) as error:
                logger.warning("the planner did not start: %s", error or "timed out")

    async def close(self) -> None:
        await self._process.kill()

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            for last_try in (False, True):
                try:
                    async with self._process.exchange():
                        return await self._ask({"id": secrets.token_hex(8), **question})
                except TimeoutError:
                    raise Unavailable(
                        f"planning took longer than {self._process.timeout_s:g} s; are the shards and the teacher reachable?",
                        code="planner_timeout", retry_after=5,
                    ) from None
                except (HelperDied, OSError) as error:
                    if last_try:
                        message = f"the planner does not run: {error}"
                        raise Unavailable(message, code="planner_unavailable", retry_after=5) from error
                    logger.warning("the planner died (%s); starting it again", error)
        raise AssertionError("unreachable")

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        await self._ensure_running()
        answer = await self._process.ask(question)
        if answer.get("id") != question["id"]:
            raise HelperDied(f"it answered {str(answer)[:200]}")
        return answer

    async def _ensure_running(self) -> None:
        if self._process.running:
            return
        await self._process.start()
        if (await self._process.read()).get("ready") is not True:
            raise HelperDied("its first line was not {\"ready\": true}")
