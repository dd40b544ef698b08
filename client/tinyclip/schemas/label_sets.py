"""Label sets of a deployment: what `PUT {endpoint}/label-sets/{name}` registers."""

from pydantic import Field

from tinyclip.schemas._base import Request, Response


class LabelSetPut(Request):
    labels: list[str] = Field(min_length=1, max_length=10_000)
    templates: list[str] = Field(default=["{}"], min_length=1, max_length=200)
    """As `a photo of a {}.`; a label's embeddings under all of them are averaged."""


class LabelSet(Response):
    name: str
    labels: list[str]
    templates: list[str]


class LabelSetSummary(Response):
    """A line of the list of sets."""

    name: str
    labels: int
    """How many."""
    templates: int
