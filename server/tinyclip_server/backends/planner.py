"""Plans specs and checks evaluations with the engine, in warm processes (`python -m tinyclip_workers.planner`).

One JSON line is written, `{"id", "spec", "dataset"}`, `{"id", "evaluation"}`, `{"id", "reinforcement"}`, `{"id", "search"}` or
`{"id", "search_plan"}`. Lines `{"id", "doing": {"pointer", "value", "what"}}` report the current step, and `{"id", "plan"}`,
`{"id", "cost"}`, `{"id", "advice"}`, `{"id", "bounds", "estimate"}`, `{"id", "errors"}`, `{"id", "failed": true}` or `{"id",
"exhausted": true}` is the answer. The first line of a process is `{"ready": true}`. A process is started when first needed, and
again after it died.
"""

import asyncio
import base64
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.artifacts.searches import Advice, Bound, SearchEstimate, SearchRecord
from tinyclip.schemas import (
    DatasetSample,
    DatasetVersion,
    FieldError,
    IndexedItem,
    JobSpec,
    Plan,
    ReinforcementCost,
    ReinforcementPost,
    SampleUse,
)
from tinyclip.validation import shown_value

from tinyclip_server.backends.helper_process import HelperDied, HelperProcess
from tinyclip_server.backends.turns import Turns
from tinyclip_server.problems import ApiError, InvalidInput, NotFound, Unavailable

logger = logging.getLogger(__name__)

ADMITTED = 8
"""Requests of one project that are planned or wait; each may hold a body of the largest size."""
ADMITTED_ITEMS = 64
"""Questions of one project about single items, which are short, that are answered or wait: a page asks for all its thumbnails."""

_field_errors = TypeAdapter(list[FieldError])


class Planner:
    """One question at a time for each project, as planning reads shards and may load a teacher; several projects at once."""

    def __init__(self, processes: Sequence[HelperProcess]) -> None:
        self._processes, self._idle = processes, list(processes)
        timeout_s = processes[0].timeout_s
        self._turns = Turns(len(processes), admitted=ADMITTED, patience_s=timeout_s, work="planning")
        self._items = Turns(len(processes), admitted=ADMITTED_ITEMS, patience_s=timeout_s, work="looking up items")

    async def plan(self, project: str, spec: JobSpec, dataset: DatasetVersion | None = None) -> Plan:
        """Return the plan of a spec; `dataset` is the version that it names.

        Raises InvalidInput if it is impossible, TooManyRequests, Unavailable without an engine, ApiError for an internal error.
        """
        answer = await self._in_turn(project, {
            "spec": spec.model_dump(mode="json"), "dataset": dataset.model_dump(mode="json") if dataset is not None else None,
        })
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_spec")
        return Plan.model_validate(answer["plan"])

    async def check_evaluation(self, project: str, request: EvaluationRequest) -> list[str]:
        """Return warnings about an evaluation. Raises as `plan`."""
        answer = await self._in_turn(project, {"evaluation": request.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_evaluation")
        return [str(warning) for warning in answer["warnings"]]

    async def reinforcement_cost(
        self, project: str, dataset: str, version: int, request: ReinforcementPost
    ) -> ReinforcementCost:
        """Return what a reinforcement would cost; its teachers' versions are pinned. Raises as `plan`."""
        question = {"dataset": dataset, "version": version, "request": request.model_dump(mode="json")}
        answer = await self._in_turn(project, {"reinforcement": question})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_reinforcement")
        return ReinforcementCost.model_validate(answer["cost"])

    async def samples(
        self, project: str, dataset: str, version: int, *, start: int, limit: int, use: SampleUse | None
    ) -> tuple[list[DatasetSample], int | None]:
        """Return samples of a version from number `start` on, and the number to continue with. Raises as `plan`, and NotFound."""
        question = {"dataset": dataset, "version": version, "start": start, "limit": limit, "use": use}
        answer = _found(await self._in_turn(project, {"samples": question}))
        return [DatasetSample.model_validate(item) for item in answer["items"]], answer["next"]

    async def thumbnail(self, project: str, dataset: str, version: int, *, key: str, number: int | None, size: int) -> bytes:
        """Return the thumbnail of a sample as a JPEG. Raises as `plan`, and NotFound."""
        question = {"dataset": dataset, "version": version, "key": key, "number": number, "size": size}
        return base64.b64decode(_found(await self._in_turn(project, {"thumbnail": question}))["jpeg"])

    async def index_item(self, project: str, index: str, *, stamp: str, id: str) -> IndexedItem:
        """Return an item of an index, whose `stamp` changes with its content. Raises as `plan`, and NotFound."""
        question = {"index": index, "stamp": stamp, "id": id}
        return IndexedItem.model_validate(_found(await self._about_item(project, {"item": question}))["item"])

    async def item_thumbnail(self, project: str, index: str, *, stamp: str, id: str, size: int) -> bytes:
        """Return the thumbnail of an item's image as a JPEG. Raises as `index_item`."""
        question = {"index": index, "stamp": stamp, "id": id, "size": size}
        return base64.b64decode(_found(await self._about_item(project, {"item_thumbnail": question}))["jpeg"])

    async def image_thumbnail(
        self, project: str, *, url: str, key: str, start: int, length: int, image_key: list[str], size: int
    ) -> bytes:
        """Return the thumbnail of the sample at a place of a shard as a JPEG. Raises as `plan`, and NotFound."""
        question = {"url": url, "key": key, "start": start, "length": length, "image_key": image_key, "size": size}
        return base64.b64decode(_found(await self._about_item(project, {"image": question}))["jpeg"])

    async def advise(self, project: str, record: SearchRecord) -> Advice:
        """Return what a search is to do next. Raises as `plan`."""
        answer = await self._in_turn(project, {"search": record.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_search")
        return Advice.model_validate(answer["advice"])

    async def foresee(self, project: str, record: SearchRecord) -> tuple[list[Bound], SearchEstimate]:
        """Return the limits of a search that has not begun beside what can be reached, and its length. Raises as `plan`."""
        answer = await self._in_turn(project, {"search_plan": record.model_dump(mode="json")})
        if answer.get("errors"):
            raise InvalidInput.of(_field_errors.validate_python(answer["errors"]), code="impossible_search")
        bounds = [Bound.model_validate(bound) for bound in answer["bounds"]]
        return bounds, SearchEstimate.model_validate(answer["estimate"])

    async def warm_up(self) -> None:
        """Start a process ahead of the first question; a failure is only logged."""
        process = self._idle[-1]
        async with self._turns.all_slots():  # questions wait for this process instead of starting another
            try:
                async with process.exchange():
                    await _ensure_running(process)
            except (HelperDied, OSError) as error:
                logger.warning("the planner did not start: %s", error or "timed out")

    async def close(self) -> None:
        await asyncio.gather(*(process.kill() for process in self._processes))

    async def _in_turn(self, project: str, question: dict[str, Any]) -> dict[str, Any]:
        async with self._turns.admit(project), self._turns.turn(project):
            return await self._answer(question)

    async def _about_item(self, project: str, question: dict[str, Any]) -> dict[str, Any]:
        """Ask about an item. Many wait in a line of their own, of which one at a time waits with the project's plans."""
        async with self._items.admit(project), self._items.turn(project):
            return await self._in_turn(project, question)

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._idle.pop()  # the one that was used last, so that others are only started when they are needed
        try:
            for last_try in (False, True):
                exchange = _Exchange(process)
                try:
                    async with process.exchange():
                        answer = await exchange.ask(question)
                    if answer.get("failed"):
                        raise exchange.failure()
                    return answer
                except TimeoutError:
                    raise exchange.timeout() from None
                except (HelperDied, OSError) as error:
                    if last_try:
                        raise exchange.death(error) from error
                    logger.warning("the planner died (%s); starting it again", error)
        finally:
            self._idle.append(process)
        raise AssertionError("unreachable")


def _found(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a question about samples or items. Raises NotFound, Unavailable."""
    if "missing" in answer:
        raise NotFound(str(answer["missing"]), code=answer.get("code", "no_such_sample"))
    if "unavailable" in answer:
        raise Unavailable(str(answer["unavailable"]), code="store_unavailable", retry_after=5)
    return answer


class _Exchange:
    """One question, its answer, and the step that the process reported last."""

    def __init__(self, process: HelperProcess) -> None:
        self._process = process
        self._asked = False
        self._doing: dict[str, Any] | None = None

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises HelperDied, OSError, and InvalidInput if it would take too much memory."""
        await _ensure_running(self._process)
        self._asked, number = True, secrets.token_hex(8)
        answer = await self._process.ask({"id": number, **question})
        while answer.get("id") == number and isinstance(answer.get("doing"), dict):
            self._doing = answer["doing"]
            answer = await self._process.read()
        if answer.get("id") != number:
            raise HelperDied(f"it answered {str(answer)[:200]}")
        if answer.get("exhausted"):
            await self._process.kill()
            raise self.problem("takes more memory than TINYCLIP_PLANNER_MEMORY_BYTES allows", "planner_memory")
        return answer

    def problem(self, what: str, code: str) -> InvalidInput:
        """Return the error of a question that cannot be answered, with the field that the process was busy with."""
        if self._doing is None:
            return InvalidInput(f"planning {what}; use fewer or smaller files, and check that they can be reached", code=code)
        message = f"{self._doing['what']} {what}; use fewer or smaller files, and check that they can be reached"
        return InvalidInput.field(self._doing["pointer"], self._doing["value"], message, code=code)

    def failure(self) -> ApiError:
        """Return the error of a question that the engine failed to answer."""
        message = "failed with an internal error; the planner's log has its traceback"
        if self._doing is None:
            return ApiError(f"planning {message}", code="planner_failed")
        message = f"{self._doing['what']} {message}"
        at = FieldError(pointer=self._doing["pointer"], value=shown_value(self._doing["value"]), message=message)
        return ApiError(message, code="planner_failed", errors=[at])

    def timeout(self) -> InvalidInput | Unavailable:
        """Return the error of a process that took too long, for this question or to start."""
        if not self._asked:
            message = f"the planner did not start within {self._process.timeout_s:g} s; its log has details"
            return Unavailable(message, code="planner_unavailable", retry_after=5)
        return self.problem(f"took longer than {self._process.timeout_s:g} s", "planner_timeout")

    def death(self, error: Exception) -> InvalidInput | Unavailable:
        """Return the error of a process that died twice: of this question, or it does not run at all."""
        if not self._asked:
            return Unavailable(f"the planner does not run: {error}", code="planner_unavailable", retry_after=5)
        return self.problem(f"ended the planner's process ({error}; its log has details)", "planner_died")


async def _ensure_running(process: HelperProcess) -> None:
    if process.running:
        return
    await process.start()
    if (await process.read()).get("ready") is not True:
        raise HelperDied('its first line was not {"ready": true}')
