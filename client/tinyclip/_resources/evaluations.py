"""Evaluations of models on tasks."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from tinyclip._http.calls import Call, as_model, idempotency_header, path
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, method, operation
from tinyclip._http.waiting import Deadline
from tinyclip.schemas import Evaluation, EvaluationState, Page


def page(
    *,
    model: str | None = None,
    state: EvaluationState | str | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[Evaluation]]:
    """Return one page of evaluations, newest first; a registered `model` is named with its version, as `emoji@3`."""
    query = {"model": model, "state": state, "page_size": page_size, "page_token": page_token}
    return Call("GET", path("evaluations"), as_model(Page[Evaluation]), query=query)


def get(evaluation_id: str) -> Call[Evaluation]:
    """Return one evaluation."""
    return Call("GET", path("evaluations", evaluation_id), as_model(Evaluation))


def create(
    model: str,
    tasks: Sequence[Mapping[str, Any]],
    *,
    against: str | None = None,
    holdout: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Evaluation]:
    """Evaluate a model on tasks as in a job's spec, and `against` on the same images; then `wait` for the results.

    Models: `emoji@best`, `ViT-B-32/laion2b_s34b_b79k`, `hf-hub:ORG/NAME`, `local-dir:PATH_OR_URI`. Tasks are sent as they are, so
    that the server reports what is wrong with them; the same key and body return the same evaluation.
    """
    body: dict[str, Any] = {"model": model, "tasks": [dict(task) for task in tasks]}
    if against is not None:
        body["against"] = against
    if holdout is not None:
        body["holdout"] = holdout
    headers = idempotency_header(idempotency_key)
    return Call("POST", path("evaluations"), as_model(Evaluation), body=body, headers=headers, wait=120.0)


def delete(evaluation_id: str) -> Call[Evaluation]:
    """Delete an evaluation, stopping it first if it is under way. Scores of a model version stay."""
    return Call("DELETE", path("evaluations", evaluation_id), as_model(Evaluation))


class EvaluationMethods(ResourceMethods):
    page = method(page)
    get = method(get)
    create = method(create)
    delete = method(delete)

    @iteration
    def list(self, *, model: str | None = None, state: EvaluationState | str | None = None) -> AsyncGenerator[Evaluation, None]:
        """Iterate over all evaluations, newest first."""
        return self._items(lambda token: page(model=model, state=state, page_token=token))

    @operation
    async def wait(
        self,
        evaluation_id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Evaluation], object] | None = None,
    ) -> Evaluation:
        """Wait until an evaluation has succeeded or failed, and return it; `on_progress` receives it meanwhile.

        Raises `WaitTimeout` after `timeout` seconds."""
        deadline = Deadline(f"evaluation {evaluation_id} is not done", timeout)
        return await self._poll(get(evaluation_id), lambda evaluation: evaluation.state.terminal, deadline, on_progress)


class Evaluations(EvaluationMethods, Resource):
    """`client.evaluations`."""


class AsyncEvaluations(EvaluationMethods, AsyncResource):
    """`async_client.evaluations`."""
