"""Label sets of a deployment, registered with `PUT {endpoint}/label-sets/{name}`."""

from pydantic import Field

from tinyclip.schemas._base import Line, Request, Response


class LabelSetPut(Request):
    labels: list[Line] = Field(min_length=1, max_length=10_000, fail_fast=True)
    templates: list[Line] = Field(default=["{}"], min_length=1, max_length=200)
    """Such as `a photo of a {}.`; a label's embeddings with all of them are averaged."""


class LabelSet(Response):
    name: str
    labels: list[str]
    templates: list[str]
    warnings: list[str] = []
    """In the answer to an upload, if there are any: words that a reduced vocabulary does not have."""


class LabelSetSummary(Response):
    """A label set in a list: numbers of labels and templates."""

    name: str
    labels: int
    templates: int
