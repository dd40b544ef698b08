"""Reading a reinforcement in training: the view of a sample in an epoch, and the teachers' embeddings of it and of a caption."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tinyclip.artifacts.documents import ReinforcementDocument
from tinyclip.artifacts.paths import reinforcement_document, reinforcement_images, reinforcement_texts
from tinyclip.artifacts.store import ArtifactsStore
from torch import Tensor

from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.reinforcement import file_format
from tinyclip_workers.data.reinforcement.embeddings import SCALE, from_stored
from tinyclip_workers.data.reinforcement.tensor_files import PageCache, TensorFile
from tinyclip_workers.data.reinforcement.texts import TextTable
from tinyclip_workers.data.reinforcement.views import StoredView
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.runtime.filesystems import open_own_store

MAX_OPEN_SHARDS = 128
"""Shards whose files a process keeps open; of remote ones it holds the tables, some hundred kilobytes each."""


class StoredReinforcement:
    """The views and embeddings of a data set's version. Files are opened when they are needed, in each process for itself."""

    def __init__(self, root: str, folder: str, document: ReinforcementDocument) -> None:
        """`root`: of the artifacts store; `folder`: of the reinforcement in it."""
        self.document, self._root, self._folder = document, root, folder
        self._opened: tuple[int, _Files] | None = None

    @classmethod
    def open(cls, store: ArtifactsStore, folder: str) -> "StoredReinforcement":
        """Read the document of a complete reinforcement. Raises DataError, OSError."""
        id = folder.rsplit("/", 1)[-1]
        data = store.read_if_exists(reinforcement_document(folder))
        if data is None:
            raise reinforcement_error(id, "is not complete, or was deleted; make it again, or omit reinforcement")
        try:
            return cls(store.root, folder, ReinforcementDocument.model_validate_json(data))
        except ValidationError as error:
            raise reinforcement_error(id, "has a damaged document; make it again, or omit reinforcement") from error

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files."""
        return {**self.__dict__, "_opened": None}

    @property
    def first_caption_only(self) -> bool:
        """True if only the first caption of each sample has embeddings."""
        return self.document.captions == "first"

    def view(self, shard: int, row: int, epoch: int) -> StoredView | None:
        """Return the view of a sample in an epoch; None if it could not be read when the reinforcement was made.

        Raises DataError if the sample is not part of the reinforcement, OSError.
        """
        images, place = self._image(shard, row)
        if not images.usable[place]:
            return None
        index = self._view_number(epoch), place
        view = images.file.part(file_format.VIEWS, index).copy()
        if file_format.OPERATIONS not in images.file.entries:
            return StoredView(view)
        found = images.file.part(file_format.OPERATIONS, index).tolist()
        return StoredView(view, tuple((int(number), magnitude) for number, magnitude in found if number >= 0))

    def targets(self, shard: int, row: int, epoch: int, caption: str) -> list[tuple[Tensor, Tensor]]:
        """Return each teacher's embeddings of that view (E) and of a caption (E); bf16 or fp32. Raises as `view`."""
        images, at = self._image(shard, row)
        with self._file_errors(shard):
            found = self._files.texts(shard).table.find(caption)
        if found is None:
            raise self._error(f"has no embeddings of a caption of sample {row} in shard {shard}: it was made of other captions")
        owner, place = found
        with self._file_errors(owner):
            texts = self._files.texts(owner)
        image, text = (self._view_number(epoch), at), (int(np.searchsorted(texts.kept, place)),)
        names = [(file_format.image(each), file_format.text(each)) for each in range(len(self.document.teachers))]
        return [(self._embedding(images.file, one, image), self._embedding(texts.file, other, text)) for one, other in names]

    def _view_number(self, epoch: int) -> int:
        return epoch % self.document.augmentations

    def _embedding(self, file: TensorFile, name: str, index: tuple[int, ...]) -> Tensor:
        scale = file.part(name + SCALE, index).item() if self.document.dtype == "int8" else None
        return from_stored(file.part(name, index), self.document.dtype, scale)

    @property
    def _files(self) -> "_Files":
        """The open files of this process: the clients of stores do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _Files(open_own_store(self._root), self._folder)
        return self._opened[1]

    def _image(self, shard: int, row: int) -> "tuple[_Images, int]":
        """Return the file of a shard's images, and the place of a sample in it. Raises DataError, OSError."""
        with self._file_errors(shard):
            images = self._files.images(shard)
        at = int(np.searchsorted(images.rows, row))
        if at == len(images.rows) or images.rows[at] != row:
            raise self._error(f"has no sample {row} of shard {shard}: it was made of another version of the data set")
        return images, at

    @contextmanager
    def _file_errors(self, shard: int) -> Iterator[None]:
        """Convert the errors of a file that is missing or damaged to DataError."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._error(f"has no file for shard {shard}: it was deleted, or the data set is another one") from error
        except WeightsError as error:
            raise self._error(f"has a damaged file: {error}") from error

    def _error(self, what: str) -> DataError:
        return reinforcement_error(self.document.id, f"{what}; make it again, or omit reinforcement")


def reinforcement_error(id: str, message: str) -> DataError:
    return DataError(f"reinforcement {id} {message}", field="data.train.reinforcement", value=id)


@dataclass(frozen=True)
class _Images:
    """The open file of a shard's images."""

    file: TensorFile
    rows: NDArray[np.int32]
    usable: NDArray[np.uint8]


@dataclass(frozen=True)
class _Texts:
    """The open file of a shard's texts."""

    file: TensorFile
    table: TextTable
    kept: NDArray[np.int32]


class _Files:
    """The open files of a process, those that were used last."""

    def __init__(self, store: ArtifactsStore, folder: str) -> None:
        self._store, self._folder, self._pages = store, folder, PageCache(store)
        self._open_images: OrderedDict[int, _Images] = OrderedDict()
        self._open_texts: OrderedDict[int, _Texts] = OrderedDict()

    def images(self, shard: int) -> _Images:
        """Raises OSError, WeightsError."""
        if shard not in self._open_images:
            file = TensorFile.open(self._store, reinforcement_images(self._folder, shard), self._pages)
            _keep(self._open_images, shard, _Images(file, file.whole(file_format.ROWS), file.whole(file_format.USABLE)))
        self._open_images.move_to_end(shard)
        return self._open_images[shard]

    def texts(self, shard: int) -> _Texts:
        """Raises OSError, WeightsError."""
        if shard not in self._open_texts:
            file = TensorFile.open(self._store, reinforcement_texts(self._folder, shard), self._pages)
            table = TextTable(file.whole(file_format.HASHES), file.whole(file_format.OWNERS), file.whole(file_format.PLACES))
            _keep(self._open_texts, shard, _Texts(file, table, file.whole(file_format.KEPT)))
        self._open_texts.move_to_end(shard)
        return self._open_texts[shard]


def _keep(opened: OrderedDict[int, Any], shard: int, file: Any) -> None:
    opened[shard] = file
    if len(opened) > MAX_OPEN_SHARDS:
        opened.popitem(last=False)
