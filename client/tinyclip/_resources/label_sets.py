"""Label sets of a deployment: labels and their templates under a name, registered once."""

from collections.abc import AsyncGenerator, Sequence
from urllib.parse import quote

from tinyclip._http.calls import Call, as_model, no_content
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, iteration, operation
from tinyclip._http.transport import Transport
from tinyclip.schemas import LabelSet, LabelSetPut, LabelSetSummary, Page


def put(endpoint: str, name: str, labels: Sequence[str], templates: Sequence[str] | None = None) -> Call[LabelSet]:
    body = LabelSetPut.model_construct(labels=list(labels))
    if templates is not None:
        body.templates = list(templates)
    document = body.model_dump(mode="json", exclude_unset=True)
    return Call("PUT", _path(endpoint, name), as_model(LabelSet), body=document)


def get(endpoint: str, name: str) -> Call[LabelSet]:
    return Call("GET", _path(endpoint, name), as_model(LabelSet))


def delete(endpoint: str, name: str) -> Call[None]:
    return Call("DELETE", _path(endpoint, name), no_content)


def page(endpoint: str, page_token: str | None = None) -> Call[Page[LabelSetSummary]]:
    return Call("GET", f"{endpoint}/label-sets", as_model(Page[LabelSetSummary]), query={"page_token": page_token})


def _path(endpoint: str, name: str) -> str:
    return f"{endpoint}/label-sets/{quote(name, safe='')}"


class LabelSetMethods(ResourceMethods):
    def __init__(self, transport: Transport, endpoint: str) -> None:
        super().__init__(transport)
        self._endpoint = endpoint

    @operation
    async def put(self, name: str, labels: Sequence[str], *, templates: Sequence[str] | None = None) -> LabelSet:
        """Create or replace a label set; `zero_shot(…, label_set=name)` uses it."""
        return await self._transport.send(put(self._endpoint, name, labels, templates))

    @operation
    async def get(self, name: str) -> LabelSet:
        """Return a label set with its labels and templates."""
        return await self._transport.send(get(self._endpoint, name))

    @operation
    async def delete(self, name: str) -> None:
        """Delete a label set."""
        await self._transport.send(delete(self._endpoint, name))

    @iteration
    def list(self) -> AsyncGenerator[LabelSetSummary, None]:
        """Iterate over all label sets, by name."""
        return self._items(lambda token: page(self._endpoint, token))


class LabelSets(LabelSetMethods, Resource):
    """`student.label_sets`."""


class AsyncLabelSets(LabelSetMethods, AsyncResource):
    """`async_student.label_sets`."""
