"""Evaluations: measure any model on any tasks."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from tinyclip._calls import AsyncResource, Call, Resource, as_model, async_method, once, path, sync_method
from tinyclip._pages import every, every_async
from tinyclip._waiting import Deadline, poll, poll_async
from tinyclip.schemas import Evaluation, EvaluationState, Page


def page(
    *,
    model: str | None = None,
    state: EvaluationState | str | None = None,
    page_size: int | None = None,
    page_token: str | None = None,
) -> Call[Page[Evaluation]]:
    """One page of evaluations, newest first; a registered `model` is named with its version, as `emoji@3`."""
    query = {"model": model, "state": state, "page_size": page_size, "page_token": page_token}
    return Call("GET", path("evaluations"), as_model(Page[Evaluation]), query=query)


def get(evaluation_id: str) -> Call[Evaluation]:
    """One evaluation as it is now."""
    return Call("GET", path("evaluations", evaluation_id), as_model(Evaluation))


def create(
    model: str,
    tasks: Sequence[Mapping[str, Any]],
    *,
    against: str | None = None,
    holdout: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Evaluation]:
    """Measures a model on tasks as in a job's spec, and `against` on the same images. The numbers are there later: `wait`.

    Models: `emoji@best`, `ViT-B-32/laion2b_s34b_b79k`, `hf-hub:ORG/NAME`, `local-dir:PATH_OR_URI`. Tasks are sent as they are, so
    that the server can say what is wrong with them; the same key and body give the same evaluation.
    """
    body: dict[str, Any] = {"model": model, "tasks": [dict(task) for task in tasks]}
    if against is not None:
        body["against"] = against
    if holdout is not None:
        body["holdout"] = holdout
    return Call("POST", path("evaluations"), as_model(Evaluation), body=body, headers=once(idempotency_key), wait=120.0)


def delete(evaluation_id: str) -> Call[Evaluation]:
    """Stops an evaluation if it is under way, and forgets it; a model version keeps the numbers it shows."""
    return Call("DELETE", path("evaluations", evaluation_id), as_model(Evaluation))


def _unseen(evaluation: Evaluation) -> None:
    """Nobody looks at the progress."""


class Evaluations(Resource):
    """`client.evaluations`."""

    page = sync_method(page)
    get = sync_method(get)
    create = sync_method(create)
    delete = sync_method(delete)

    def list(self, *, model: str | None = None, state: EvaluationState | str | None = None) -> Iterator[Evaluation]:
        """All evaluations, newest first."""
        return every(self._transport, lambda token: page(model=model, state=state, page_token=token))

    def wait(
        self, evaluation_id: str, *, timeout: float | None = None, on_progress: Callable[[Evaluation], object] = _unseen
    ) -> Evaluation:
        """The evaluation once it has its numbers or has failed; `on_progress` sees it on the way. Raises `WaitTimeout`."""
        deadline = Deadline(f"evaluation {evaluation_id} is not done", timeout)
        return poll(lambda: self.get(evaluation_id), is_settled, deadline, on_progress)


class AsyncEvaluations(AsyncResource):
    """`async_client.evaluations`; see `Evaluations`."""

    page = async_method(page)
    get = async_method(get)
    create = async_method(create)
    delete = async_method(delete)

    def list(self, *, model: str | None = None, state: EvaluationState | str | None = None) -> AsyncIterator[Evaluation]:
        """All evaluations, newest first."""
        return every_async(self._transport, lambda token: page(model=model, state=state, page_token=token))

    async def wait(
        self, evaluation_id: str, *, timeout: float | None = None, on_progress: Callable[[Evaluation], object] = _unseen
    ) -> Evaluation:
        """The evaluation once it has its numbers or has failed; see `Evaluations.wait`."""
        deadline = Deadline(f"evaluation {evaluation_id} is not done", timeout)
        return await poll_async(lambda: self.get(evaluation_id), is_settled, deadline, on_progress)


def is_settled(evaluation: Evaluation) -> bool:
    """True when its numbers, or the reason why there are none, are there."""
    return evaluation.state.settled
