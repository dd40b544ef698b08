"""Retrieval indexes, their items, and searches."""

import math
from collections import Counter
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tinyclip.schemas._base import (
    JSON,
    EncodedImage,
    Keys,
    Line,
    LongText,
    OpenObject,
    Request,
    Response,
    Timestamp,
)
from tinyclip.schemas.addresses import Shards

IndexKind = Literal["auto", "exact", "hnsw"]
"""`exact` compares a query with every item, `hnsw` walks a graph of near neighbours; `auto` is exact below 100,000 items
(10,000 in a database)."""

IndexStore = Literal["files", "pgvector"]
"""Where vectors are kept: in files of the artifacts store that each replica opens, or in a PostgreSQL that all query."""


IndexCodes = Literal["float", "int8", "binary"]
"""How vectors are kept: 4 bytes for a number (`float`), one (`int8`), or one and a bit, which is compared first (`binary`)."""


class IndexSource(Request):
    shards: Shards
    image_key: Keys = ["jpg", "png", "webp", "jpeg"]
    metadata_keys: Keys = ["json"]


class IndexPut(Request):
    model: Line
    source: IndexSource | None = None
    """None: an empty index, to be filled with items."""
    kind: IndexKind = "auto"
    store: IndexStore = "files"
    codes: IndexCodes = "float"
    dimensions: int | None = Field(default=None, ge=1)
    """Leading numbers of the embeddings to keep: a size that the model was trained for; None: all."""

    @model_validator(mode="after")
    def _codes_fit(self) -> Self:
        if self.codes != "float" and self.kind == "hnsw":
            raise ValueError(f"codes: {self.codes} are compared one by one, graphs hold floats; omit kind, or codes")
        if self.store == "pgvector" and (self.codes != "float" or self.dimensions is not None):
            raise ValueError("codes and dimensions are for indexes in files; omit them, or store: pgvector")
        return self


class IndexState(StrEnum):
    BUILDING = "building"
    READY = "ready"
    UPDATING = "updating"
    """Searchable; accepted changes are being applied."""
    FAILED = "failed"
    DELETING = "deleting"

    @property
    def settled(self) -> bool:
        """True when no build and no update is under way."""
        return self in (IndexState.READY, IndexState.FAILED)


IndexAction = Literal["build", "update", "delete"]
"""`build`: to PUT it again. `update`: to add, replace and remove items."""


class RejectedItem(Response):
    """An item of an accepted update that could not be embedded; an existing item with its id is kept."""

    update: int
    id: str
    reason: str


class Index(Response):
    name: str
    model: str
    state: IndexState
    store: IndexStore = "files"
    """The requested store. Until a rebuild has ended, searches use the former one."""
    kind: Literal["exact", "hnsw"] = "exact"
    """The search method, requested or chosen by size."""
    recall: float | None = None
    """Share of the ten nearest items of an exact search in floats that is found, measured on a sample when it was built; None:
    all of them."""
    codes: IndexCodes = "float"
    """The requested codes."""
    dimensions: int | None = None
    """The requested dimensions; None: all."""
    bytes: int | None = None
    """Size of its files; None: not known, or in a database."""
    search_ms: float | None = None
    """CPU milliseconds of a search for ten items, the median of a sample where it was built; None: not measured."""
    count: int = 0
    progress: float = 0.0
    message: str = ""
    updates: int = 0
    """Number of the newest accepted update. An accepted update is never lost and never applied twice."""
    applied_updates: int = 0
    """Number of the newest update that searches see, with all before it."""
    pending_updates: int = 0
    rejected: list[RejectedItem] = []
    """The newest 20."""
    actions: list[IndexAction] = []
    """What the state allows to the caller now."""
    created_at: Timestamp
    updated_at: Timestamp


MOST_ITEMS = 1000
"""The most items in one request."""
LONGEST_ID = 512


class IndexItem(Request):
    """One item: an image (base64 or a data URI), a text or a vector, and the metadata that hits show."""

    id: str = Field(min_length=1, max_length=LONGEST_ID)
    image: EncodedImage | None = None
    text: str | None = Field(default=None, max_length=10_000)
    vector: Annotated[list[float], Field(min_length=1, max_length=16_384, fail_fast=True)] | None = None
    """With the dimensions of the model's embeddings; it is normalised."""
    metadata: OpenObject = {}

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
    """Items to add; an existing item with the same id is replaced."""

    items: Annotated[list[IndexItem], Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)]

    @model_validator(mode="after")
    def _each_id_once(self) -> Self:
        [(id, times)] = Counter(item.id for item in self.items).most_common(1)
        if times > 1:
            raise ValueError(f"the id {id!r} occurs {times} times; an id names one item")
        return self


class IndexedItem(Response):
    """An item of an index, as its newest generation has it."""

    id: str
    metadata: JSON
    shard: str | None = None
    """The shard that has its image; None if it was added by request, or its place is not known."""
    has_thumbnail: bool = False
    """False: it has no image, or an image of unknown place: the index is in a database, or of an older version."""


class SearchRequest(Request):
    index: Line
    text: LongText | None = None
    image: EncodedImage | None = None
    item: str | None = Field(default=None, min_length=1, max_length=LONGEST_ID)
    """Id of an item of the index: find items like it, by its stored vector. It is not among its own hits."""
    top_k: int = Field(default=10, ge=1, le=1000)
    compatible: bool = False
    """Search the index also if it is of the model's teacher or student, as far as the two were measured to be compatible."""
    filter: OpenObject | None = Field(
        default=None,
        description="Conditions on the items' metadata by dotted path, all of which must hold: a value, a list (any of), or "
        "operators gt, gte, lt, lte, ne, in.",
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
    """The search method: an index with a graph is searched exactly if few items meet the filter."""
    generation: int = 0
    """Increases with each change of the index."""
