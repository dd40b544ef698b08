"""Label sets of a deployment: labels and their templates under a name, registered once."""

from collections.abc import AsyncIterator, Iterator, Sequence
from urllib.parse import quote

from tinyclip._calls import Call, as_model, nothing
from tinyclip._pages import every, every_async
from tinyclip._transport import AsyncTransport, Transport
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
    return Call("DELETE", _path(endpoint, name), nothing)


def page(endpoint: str, page_token: str | None = None) -> Call[Page[LabelSetSummary]]:
    return Call("GET", f"{endpoint}/label-sets", as_model(Page[LabelSetSummary]), query={"page_token": page_token})


def _path(endpoint: str, name: str) -> str:
    return f"{endpoint}/label-sets/{quote(name, safe='')}"


class LabelSets:
    """`student.label_sets`."""

    def __init__(self, transport: Transport, endpoint: str) -> None:
        self._transport, self._endpoint = transport, endpoint

    def put(self, name: str, labels: Sequence[str], *, templates: Sequence[str] | None = None) -> LabelSet:
        """Register labels under a name, or others instead; `zero_shot(…, label_set=name)` asks with them."""
        return self._transport.send(put(self._endpoint, name, labels, templates))

    def get(self, name: str) -> LabelSet:
        """Its labels and templates."""
        return self._transport.send(get(self._endpoint, name))

    def list(self) -> Iterator[LabelSetSummary]:
        """All sets by name."""
        return every(self._transport, lambda token: page(self._endpoint, token))

    def delete(self, name: str) -> None:
        """Forget a set."""
        self._transport.send(delete(self._endpoint, name))


class AsyncLabelSets:
    """`async_student.label_sets`; see `LabelSets`."""

    def __init__(self, transport: AsyncTransport, endpoint: str) -> None:
        self._transport, self._endpoint = transport, endpoint

    async def put(self, name: str, labels: Sequence[str], *, templates: Sequence[str] | None = None) -> LabelSet:
        """Register labels under a name; see `LabelSets.put`."""
        return await self._transport.send(put(self._endpoint, name, labels, templates))

    async def get(self, name: str) -> LabelSet:
        """Its labels and templates."""
        return await self._transport.send(get(self._endpoint, name))

    def list(self) -> AsyncIterator[LabelSetSummary]:
        """All sets by name."""
        return every_async(self._transport, lambda token: page(self._endpoint, token))

    async def delete(self, name: str) -> None:
        """Forget a set."""
        await self._transport.send(delete(self._endpoint, name))
