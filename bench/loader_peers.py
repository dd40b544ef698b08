"""The loaders that `loader.py` compares: each yields the captions and uint8 pixels (B, 3, SIZE, SIZE) of a folder of shards.

B batch. All take the same random crop, none tokenizes, and only ours shuffles and checks what it reads.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
import webdataset
from loader_data import ShardFolder
from PIL import Image
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.crops import Crop, random_crop
from tinyclip_workers.data.decoding import decode_crop
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

SIZE, SCALE = 224, (0.9, 1.0)

Pairs = tuple[Tensor, list[str]]
Loader = Callable[[ShardFolder, int], Iterator[Pairs]]


def tinyclip(folder: ShardFolder, processes: int) -> Iterator[Pairs]:
    """The training stream, with its shuffling. Texts are not tokenized; the index was made when the data set was registered."""
    train = {"shards": folder.shards, "image_key": ["jpg"], "caption_key": "txt", "augment": {"crop_scale": SCALE}}
    spec = DataSpec.model_validate({"train": train})
    options = {"batch_size": folder.batch_size, "image_size": SIZE, "tokenize": no_tokens, "seed": 0}
    stream = PairStream(spec, index_shards(spec.train), **options)
    return ((batch.images_BCHW, [""] * len(batch.tokens_BT)) for batch in BatchLoader(stream, processes))


def no_tokens(caption: str) -> Tensor:
    return torch.zeros(77, dtype=torch.int64)


class _ShardBatches(IterableDataset[Pairs], ABC):
    """Batches of the shards that belong to this loader process."""

    def __init__(self, folder: ShardFolder) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[Pairs]:
        info = get_worker_info()
        shards = self._folder.shards[info.id :: info.num_workers] if info else self._folder.shards
        pairs: list[tuple[bytes, str]] = []
        for url in shards:
            for sample in read_shard(url):
                pairs.append((sample["jpg"], sample["txt"].decode()))
                if len(pairs) == self._folder.batch_size:
                    yield self.pixels([data for data, _ in pairs]), [caption for _, caption in pairs]
                    pairs = []

    @abstractmethod
    def pixels(self, jpegs: list[bytes]) -> Tensor:
        """Decode and crop images: (B, 3, size, size)."""


def tinyclip_decoding(folder: ShardFolder, processes: int) -> Iterator[Pairs]:
    """Our decoding in the place of torchvision's: the same samples, in their order, without index, checks and shuffling."""
    return iter(DataLoader(_Decoding(folder), batch_size=None, num_workers=processes))


class _Decoding(_ShardBatches):
    def __init__(self, folder: ShardFolder) -> None:
        super().__init__(folder)
        self._rng = np.random.default_rng(0)

    def pixels(self, jpegs: list[bytes]) -> Tensor:
        images = [decode_crop(data, SIZE, self._draw) for data in jpegs]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _draw(self, width: int, height: int) -> Crop:
        return random_crop(width, height, SCALE, self._rng)


def torchvision(folder: ShardFolder, processes: int) -> Iterator[Pairs]:
    """Decoding and cropping by torchvision, of the samples that our reader returns."""
    return iter(DataLoader(_Torchvision(folder), batch_size=None, num_workers=processes))


class _Torchvision(_ShardBatches):
    def __init__(self, folder: ShardFolder) -> None:
        super().__init__(folder)
        self._crop = v2.RandomResizedCrop(SIZE, SCALE, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)

    def pixels(self, jpegs: list[bytes]) -> Tensor:
        buffers = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in jpegs]
        return torch.stack([self._crop(decode_jpeg(buffer, ImageReadMode.RGB)) for buffer in buffers])


def pil_transform() -> v2.Compose:
    """Return the usual transform of a PIL image, as open_clip's but for the normalisation."""
    crop = v2.RandomResizedCrop(SIZE, SCALE, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([crop, v2.PILToTensor()])


def webdataset_loader(folder: ShardFolder, processes: int) -> Iterator[Pairs]:
    """The pipeline of webdataset's documentation, and its loader."""
    pairs = webdataset.WebDataset(folder.shards, shardshuffle=False).decode("pilrgb").to_tuple("jpg", "txt")
    batches = pairs.map_tuple(pil_transform(), _same).batched(folder.batch_size, partial=False)
    return iter(webdataset.WebLoader(batches, batch_size=None, num_workers=processes))


def _same(caption: str) -> str:
    return caption


def mosaicml_streaming(folder: ShardFolder, processes: int) -> Iterator[Pairs]:
    """A StreamingDataset over the same JPEGs, decoded by PIL as its own JPEG column does."""
    from streaming import StreamingDataset  # not a dependency of the project

    class Decoded(StreamingDataset):
        def __init__(self, local: str, batch_size: int) -> None:
            super().__init__(local=local, shuffle=False, batch_size=batch_size)
            self._transform = pil_transform()

        def __getitem__(self, at: int) -> tuple[Tensor, str]:
            sample = super().__getitem__(at)
            return self._transform(Image.open(io.BytesIO(sample["image"])).convert("RGB")), sample["caption"]

    dataset = Decoded(folder.mds, folder.batch_size)
    return iter(DataLoader(dataset, batch_size=folder.batch_size, num_workers=processes, drop_last=True))


LOADERS: dict[str, Loader] = {
    "tinyclip": tinyclip,
    "tinyclip decoding": tinyclip_decoding,
    "torchvision": torchvision,
    "webdataset": webdataset_loader,
    "mosaicml-streaming": mosaicml_streaming,
}
