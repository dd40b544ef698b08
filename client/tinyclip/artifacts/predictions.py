"""Predictions of a task's images: the file that evaluations write and the server reads, gzipped JSON by columns."""

import gzip
import hashlib
import json
import zlib

from tinyclip.schemas._base import Response

MAX_IMAGES = 100_000
"""Images of a task whose predictions are kept."""
MAX_CHARACTERS = 8 << 20
"""Limit of all keys and addresses together."""
MAX_JSON_BYTES = 128 << 20
"""Limit of the unpacked file when it is read; it has 10 MB for 100,000 images with usual keys."""


class UnreadablePredictions(ValueError):
    """A file that is damaged or too large."""


class ModelPredictions(Response):
    """The most likely class of each image, by one model."""

    rows: list[int]
    """Of the classes."""
    scores: list[float]
    """Shares of a softmax over all classes."""


class TaskPredictions(Response):
    """The predictions of several models for the same images; columns have one entry for each image."""

    task: str
    classes: list[str]
    image_key: list[str]
    """Extensions of which the first that a sample has is its image."""
    images: int
    """All images that were evaluated; the columns may have the first of them only."""
    shards: list[str]
    shard: list[int]
    """Row of `shards`."""
    start: list[int]
    """Where the sample begins in the decompressed shard."""
    length: list[int]
    """From there to the end of the sample."""
    keys: list[str]
    """Printable."""
    labels: list[int]
    """Row of the true class."""
    models: dict[str, ModelPredictions]
    """By `student` and `teacher`."""

    def pack(self) -> bytes:
        """Return the content of the file, the same for the same predictions."""
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        return gzip.compress(text.encode(), compresslevel=6, mtime=0)

    @classmethod
    def unpack(cls, data: bytes) -> "TaskPredictions":
        """Raises UnreadablePredictions."""
        try:
            unpacker = zlib.decompressobj(wbits=31)
            text = unpacker.decompress(data, MAX_JSON_BYTES)
            found = cls.model_validate_json(text) if unpacker.eof else None
        except (zlib.error, ValueError) as error:
            raise UnreadablePredictions(f"not a file of predictions: {type(error).__name__}") from error
        if found is None:
            raise UnreadablePredictions(f"truncated, or more than {MAX_JSON_BYTES:,} bytes unpacked")
        found._check_columns()
        return found

    def images_digest(self) -> str:
        """Return a digest of the images, their labels and the classes, which says whether two files can be joined."""
        compared = [self.images, self.classes, self.shards, self.shard, self.keys, self.labels]
        return hashlib.sha256(json.dumps(compared).encode()).hexdigest()

    def _check_columns(self) -> None:
        lengths = {len(column) for column in (self.keys, self.shard, self.start, self.length, self.labels)}
        lengths |= {len(column) for model in self.models.values() for column in (model.rows, model.scores)}
        rows = [*self.labels, *(row for model in self.models.values() for row in model.rows)]
        if len(lengths) > 1 or not all(0 <= row < len(self.classes) for row in rows):
            raise UnreadablePredictions("its columns do not fit together")
        if not all(0 <= row < len(self.shards) for row in self.shard):
            raise UnreadablePredictions("it names a shard that it does not list")
