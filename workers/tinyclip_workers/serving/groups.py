"""Batches are gathered in groups, the share of one request each: cut, counted and given back here."""

from collections.abc import Sequence, Sized
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


def cut(items: Sequence[T], size: int) -> list[list[T]]:
    """Groups of at most `size`, in order."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def count(groups: Sequence[Sized]) -> int:
    """Items in all groups: what the limit of a batch is about."""
    return sum(len(group) for group in groups)


def split(rows: npt.NDArray[np.float32], groups: Sequence[Sized]) -> list[npt.NDArray[np.float32]]:
    """The rows of each group again."""
    return np.split(rows, np.cumsum([len(group) for group in groups])[:-1])
