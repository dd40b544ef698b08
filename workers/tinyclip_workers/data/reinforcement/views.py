"""A stored view, and what the training stream needs of a reinforcement."""

from typing import NamedTuple, Protocol

from torch import Tensor

from tinyclip_workers.data.augment import View
from tinyclip_workers.data.datacompdr import Operation


class StoredView(NamedTuple):
    """The parameters of an augmentation."""

    view: View
    """The crop, and what follows on the training device (P)."""
    operations: tuple[Operation, ...] = ()
    """Operations on the cropped image, of an imported reinforcement."""


class StoredViews(Protocol):
    """A reinforcement: stored views of every image, and the teachers' embeddings of them and of every caption."""

    @property
    def first_caption_only(self) -> bool:
        """True if only the first caption of each sample has embeddings."""

    def view(self, shard: int, row: int, epoch: int) -> StoredView | None:
        """Return the view of a sample in an epoch; None if the sample has no embeddings. Raises DataError, OSError."""

    def targets(self, shard: int, row: int, epoch: int, caption: str) -> list[tuple[Tensor, Tensor]]:
        """Return each teacher's embeddings of that view (E) and of a caption (E). Raises DataError, OSError."""
