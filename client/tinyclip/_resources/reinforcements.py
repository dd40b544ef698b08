"""Reinforcements of data sets, teachers' embeddings that training uses instead of the teachers: methods of `client.datasets`."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from tinyclip._http.calls import Call, as_model, idempotency_header, path
from tinyclip._http.methods import ResourceMethods, iteration, method, operation
from tinyclip._http.waiting import Deadline
from tinyclip.errors import InputError
from tinyclip.schemas import Page, Reinforcement, ReinforcementCost


def version_path(reference: str, *below: str | int) -> str:
    """Return the path of a version named as `emoji@3`, `emoji@best` or `emoji` (its latest). Raises `InputError`."""
    name, _, which = reference.partition("@")
    if not name:
        raise InputError(f"data set {reference!r}", "name it as NAME@VERSION, NAME@ALIAS or NAME")
    return path("datasets", name, "versions", which or "latest", *below)


def reinforce(
    reference: str,
    teacher: Mapping[str, Any] | None = None,
    *,
    teachers: Sequence[Mapping[str, Any]] | None = None,
    augmentations: int | None = None,
    augment: Mapping[str, Any] | None = None,
    captions: str | None = None,
    dtype: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Reinforcement]:
    """Store the embeddings of a teacher, or of several, for a version; then `wait_for_reinforcement`.

    `augmentations`: views of each image. An equal reinforcement that exists is returned, and one that has failed continues.
    """
    given = {
        "teacher": teacher, "teachers": teachers, "augmentations": augmentations, "augment": augment, "captions": captions,
        "dtype": dtype,
    }  # fmt: skip
    document = {key: value for key, value in given.items() if value is not None}
    return reinforce_with(reference, document, idempotency_key=idempotency_key)


def reinforce_with(
    reference: str, document: Mapping[str, Any], *, idempotency_key: str | None = None
) -> Call[Reinforcement]:
    """Reinforce a version as a whole `ReinforcementPost` describes, sent as it is."""
    where, headers = version_path(reference, "reinforcements"), idempotency_header(idempotency_key)
    return Call("POST", where, as_model(Reinforcement), body=dict(document), headers=headers, wait=60.0)


def estimate_reinforcement(reference: str, document: Mapping[str, Any]) -> Call[ReinforcementCost]:
    """Return what a reinforcement would cost and save, measured on a few samples; nothing is stored.

    `document` is what `reinforce` sends: `{"teacher": {…}, "augmentations": 5}`.
    """
    where, body = version_path(reference, "reinforcements"), {**document, "dry_run": True}
    return Call("POST", where, as_model(ReinforcementCost), body=body, headers=idempotency_header(), wait=300.0)


def reinforcements_page(
    reference: str, *, page_size: int | None = None, page_token: str | None = None
) -> Call[Page[Reinforcement]]:
    """Return one page of the reinforcements of a version, newest first."""
    query = {"page_size": page_size, "page_token": page_token}
    return Call("GET", version_path(reference, "reinforcements"), as_model(Page[Reinforcement]), query=query)


def get_reinforcement(reference: str, id: str) -> Call[Reinforcement]:
    """Return one reinforcement."""
    return Call("GET", version_path(reference, "reinforcements", id), as_model(Reinforcement))


def delete_reinforcement(reference: str, id: str) -> Call[Reinforcement]:
    """Delete a reinforcement and its files, stopping it first if it is under way."""
    return Call("DELETE", version_path(reference, "reinforcements", id), as_model(Reinforcement))


class ReinforcementMethods(ResourceMethods):
    reinforce = method(reinforce)
    estimate_reinforcement = method(estimate_reinforcement)
    reinforcements_page = method(reinforcements_page)
    get_reinforcement = method(get_reinforcement)
    delete_reinforcement = method(delete_reinforcement)

    @iteration
    def reinforcements(self, reference: str) -> AsyncGenerator[Reinforcement, None]:
        """Iterate over the reinforcements of a version, newest first."""
        return self._items(lambda token: reinforcements_page(reference, page_token=token))

    @operation
    async def wait_for_reinforcement(
        self,
        reference: str,
        id: str,
        *,
        timeout: float | None = None,
        on_progress: Callable[[Reinforcement], object] | None = None,
    ) -> Reinforcement:
        """Wait until a reinforcement has succeeded or failed, and return it; `on_progress` receives it meanwhile.

        Raises `WaitTimeout` after `timeout` seconds."""
        deadline = Deadline(f"reinforcement {id} is not done", timeout)
        call = get_reinforcement(reference, id)
        return await self._poll(call, lambda reinforcement: reinforcement.state.terminal, deadline, on_progress)
