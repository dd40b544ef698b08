"""The tensors of a reinforcement's files: two files for each shard of the data set.

`images/<shard>.safetensors`: the views of each training sample, and each teacher's embeddings of them. Views are the first axis:
an epoch trains on one view of each sample, and the samples of a block of the shard lie side by side.

`texts/<shard>.safetensors`: a table of the shard's distinct texts by their hash, and the embeddings of those texts that no shard
before it has, in the order in which they occur. Each text is stored once in the whole reinforcement; most are in the file of the
shard where they are needed.

K views, N training samples, P numbers of a view, E embedding size, M texts of the shard, O of them stored in its file.
"""

from collections.abc import Sequence

from tinyclip_workers.data.augment import VIEW
from tinyclip_workers.data.reinforcement.embeddings import embedding_tensors
from tinyclip_workers.data.reinforcement.tensor_files import Shapes

ROWS, USABLE, VIEWS = "rows", "usable", "views"
"""Rows of the samples in the shard (N), 1 for those with embeddings and 0 for those that could not be read, views (K, N, P)."""
OPERATIONS, MAX_OPERATIONS, NO_OPERATION = "operations", 2, -1
"""Number and magnitude of each operation after the crop (K, N, 2, 2), in imported reinforcements; number -1: none."""
HASHES, OWNERS, PLACES = "hashes", "owners", "places"
"""For each text of the shard, sorted by hash: its hash (2, M), the shard that has its embeddings (M), and its number among that
shard's texts (M), in the order in which they occur there."""
KEPT = "kept"
"""Numbers of the shard's texts whose embeddings are in its file (O), sorted."""
BUCKETS = "buckets"
"""Limits of the parts of the table whose hashes begin with the same byte (257). Only in files of an incomplete reinforcement."""


def image(teacher: int) -> str:
    """Embeddings of images (K, N, E)."""
    return f"image.{teacher}"


def text(teacher: int) -> str:
    """Embeddings of texts (O, E)."""
    return f"text.{teacher}"


def image_shapes(views: int, samples: int, widths: Sequence[int], dtype: str, *, operations: bool = False) -> Shapes:
    """Return the tensors of a shard's images. `widths`: the teachers' embedding sizes."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        ROWS: ("I32", (samples,)), USABLE: ("U8", (samples,)), VIEWS: ("F32", (views, samples, len(VIEW))),
    }  # fmt: skip
    if operations:
        shapes[OPERATIONS] = ("F32", (views, samples, MAX_OPERATIONS, 2))
    for teacher, width in enumerate(widths):
        shapes |= embedding_tensors(image(teacher), (views, samples, width), dtype)
    return shapes


def text_shapes(texts: int, kept: int, widths: Sequence[int], dtype: str, *, complete: bool = True) -> Shapes:
    """Return the tensors of a shard's texts, of which the file has the embeddings of `kept`."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        HASHES: ("U64", (2, texts)), OWNERS: ("I32", (texts,)), PLACES: ("I32", (texts,)), KEPT: ("I32", (kept,)),
    }  # fmt: skip
    if not complete:
        shapes[BUCKETS] = ("I32", (257,))
    for teacher, width in enumerate(widths):
        shapes |= embedding_tensors(text(teacher), (kept, width), dtype)
    return shapes
