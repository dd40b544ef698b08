"""Retrieval indexes as the API shows them, their items, and searches."""

import math
from collections import Counter
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tinyclip.schemas._base import JSON, Request, Response, Timestamp

IndexKind = Literal["auto", "exact", "hnsw"]
"""`exact` compares a query with every item, `hnsw` walks a graph of near neighbours; `auto` is exact below 100,000 items, in a
database below 10,000."""

IndexStore = Literal["files", "pgvector"]
"""Where an index's vectors live: in files of the artifacts store that each replica opens, or in a PostgreSQL that all ask."""


class IndexSource(Request):
    shards: str | list[str]
    image_key: list[str] = ["jpg", "png", "webp", "jpeg"]
    metadata_keys: list[str] = ["json"]


class IndexPut(Request):
    model: str
    source: IndexSource | None = None
    """null: an empty index, to be filled item by item."""
    kind: IndexKind = "auto"
    store: IndexStore = "files"


class IndexState(StrEnum):
    BUILDING = "building"
    READY = "ready"
    UPDATING = "updating"
    """Searchable; changes that were accepted are being applied."""
    FAILED = "failed"
    DELETING = "deleting"

    @property
    def settled(self) -> bool:
        """True when no build and no update is under way."""
        return self in (IndexState.READY, IndexState.FAILED)


class RejectedItem(Response):
    """An item of an accepted update that could not be embedded; what was under its id stays."""

    update: int
    id: str
    reason: str


class Index(Response):
    name: str
    model: str
    state: IndexState
    store: IndexStore = "files"
    """As asked for. Until the build is done, searches are answered from where the index was."""
    kind: Literal["exact", "hnsw"] = "exact"
    """How it is searched, as chosen for its size or asked for."""
    recall: float | None = None
    """Of the ten nearest, the share that the graph finds; measured on a sample when it was built. null: exact."""
    count: int = 0
    progress: float = 0.0
    message: str = ""
    updates: int = 0
    """Number of the newest update that was accepted. An accepted update is never lost and never applied twice."""
    applied_updates: int = 0
    """Number of the newest update that searches see; all before it are seen too."""
    pending_updates: int = 0
    rejected: list[RejectedItem] = []
    """The newest 20."""
    created_at: Timestamp
    updated_at: Timestamp


MOST_ITEMS = 1000
"""In one request."""
LONGEST_ID = 512


class IndexItem(Request):
    """One item: a picture (base64 or a data URI), a text or a vector, and what a hit shows of it."""

    id: str = Field(min_length=1, max_length=LONGEST_ID)
    image: str | None = None
    text: str | None = Field(default=None, max_length=10_000)
    vector: Annotated[list[float], Field(min_length=1, max_length=16_384)] | None = None
    """As long as the model's embeddings; made to length 1."""
    metadata: JSON = {}

    @field_validator("vector")
    @classmethod
    def _has_a_direction(cls, vector: list[float] | None) -> list[float] | None:
        if vector is not None and not (math.isfinite(length := math.hypot(*vector)) and length > 0):
            raise ValueError("has no direction; give finite numbers that are not all 0")
        return vector

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("image", "text", "vector") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of image, text and vector, not {' and '.join(given) or 'none'}")
        if self.text is not None and not self.text.strip():
            raise ValueError("the text is blank")
        return self


class IndexItems(Request):
    """Items to be added; one whose id is there already is replaced."""

    items: list[IndexItem] = Field(min_length=1, max_length=MOST_ITEMS)

    @model_validator(mode="after")
    def _each_id_once(self) -> Self:
        [(id, times)] = Counter(item.id for item in self.items).most_common(1)
        if times > 1:
            raise ValueError(f"the id {id!r} is there {times} times; an id names one item")
        return self


class SearchRequest(Request):
    index: str
    text: str | None = None
    image: str | None = None
    top_k: int = Field(default=10, ge=1, le=1000)
    filter: dict[str, Any] | None = Field(
        default=None,
        description="Conditions on the items' metadata by dotted path, all of which hold: a value, a list (any of), or operators "
        "gt, gte, lt, lte, ne, in.",
        examples=[{"year": {"gte": 2000, "lt": 2010}, "camera.make": "Leica", "tags": ["red", "blue"]}],
    )


class Hit(Response):
    id: str
    score: float
    metadata: JSON


class SearchResponse(Response):
    hits: list[Hit]
    model: str
    kind: Literal["exact", "hnsw"] = "exact"
    """How the hits were found: an index with a graph is searched exactly too where a filter leaves few items."""
    generation: int = 0
    """Grows with each change of the index."""
