"""Label sets of a deployment: labels and their templates under a name, registered once."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol
from urllib.parse import quote

from tinyclip._http.calls import Call, as_model, no_content
from tinyclip._http.methods import AsyncResource, Resource, ResourceMethods, bound_method, iteration
from tinyclip._http.transport import Transport
from tinyclip.schemas import LabelSet, LabelSetPut, LabelSetSummary, Page


class Endpoint(Protocol):
    """An object of a deployment, such as a `Student` or its `LabelSets`."""

    endpoint: str


def put(at: Endpoint, name: str, labels: Sequence[str], *, templates: Sequence[str] | None = None) -> Call[LabelSet]:
    """Create or replace a label set; `zero_shot(…, label_set=name)` uses it."""
    body = LabelSetPut.model_construct(labels=list(labels))
    if templates is not None:
        body.templates = list(templates)
    document = body.model_dump(mode="json", exclude_unset=True)
    return Call("PUT", _url(at, name), as_model(LabelSet), body=document)


def get(at: Endpoint, name: str) -> Call[LabelSet]:
    """Return a label set with its labels and templates."""
    return Call("GET", _url(at, name), as_model(LabelSet))


def delete(at: Endpoint, name: str) -> Call[None]:
    """Delete a label set."""
    return Call("DELETE", _url(at, name), no_content)


def page(at: Endpoint, page_token: str | None = None) -> Call[Page[LabelSetSummary]]:
    return Call("GET", f"{at.endpoint}/label-sets", as_model(Page[LabelSetSummary]), query={"page_token": page_token})


def _url(at: Endpoint, name: str) -> str:
    return f"{at.endpoint}/label-sets/{quote(name, safe='')}"


class LabelSetMethods(ResourceMethods):
    def __init__(self, transport: Transport, endpoint: str) -> None:
        super().__init__(transport)
        self.endpoint = endpoint

    put = bound_method(put)
    get = bound_method(get)
    delete = bound_method(delete)

    @iteration
    def list(self) -> AsyncGenerator[LabelSetSummary, None]:
        """Iterate over all label sets, by name."""
        return self._items(lambda token: page(self, token))


class LabelSets(LabelSetMethods, Resource):
    """`student.label_sets`."""


class AsyncLabelSets(LabelSetMethods, AsyncResource):
    """`async_student.label_sets`."""
