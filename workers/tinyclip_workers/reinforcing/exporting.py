"""Export a reinforcement to the layout of DataCompDR: shards with images, captions, views and embeddings.

    python -m tinyclip_workers.reinforcing.exporting --artifacts ROOT --dataset NAME --version V --reinforcement ID --out FOLDER

Each shard of the data set becomes a tar of the same number below the folder (a path or URI), with the samples that have
embeddings: the image as it is, `txt` with the first caption and, if there are several, `json` with all in `captions`, `syn.json`,
`paug.json`, and `npz` with fp32 or `pth.gz` with bf16. `config.json` has teachers and transforms.

Of augmentations, the layout has crops and RandAugment: a reinforcement with others is refused. Images that EXIF turns are left
out, which the layout does not consider.

K views, E sum of the teachers' embedding sizes.
"""

import argparse
import gzip
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tinyclip.artifacts.documents import ReinforcementDocument
from tinyclip.artifacts.paths import reinforcement_folder
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import DatasetVersion
from tinyclip.schemas.spec import ImageAugmentation

from tinyclip_workers.data.augment import crop_of, recolors, warps
from tinyclip_workers.data.datacompdr import ARRAYS, SYNTHETIC, TENSORS, VIEWS
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.images import open_image, upright_transpose
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.reinforcement.views import StoredView
from tinyclip_workers.data.samples import Sample, captions_of, image_bytes
from tinyclip_workers.reinforcing.inputs import open_version
from tinyclip_workers.reinforcing.shard_files import read_training_samples
from tinyclip_workers.runtime.filesystems import open_own_store, open_store


def main() -> None:
    """Run the command; exit with status 1 and the reason on stderr if the reinforcement cannot be exported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("artifacts", "dataset", "reinforcement", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--version", required=True, type=int)
    arguments = parser.parse_args()
    try:
        store = open_own_store(arguments.artifacts)
        export(store, arguments.dataset, arguments.version, arguments.reinforcement, open_store(arguments.out))
    except (DataError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def export(store: ArtifactsStore, dataset: str, number: int, id: str, out: ArtifactsStore) -> int:
    """Write the shards; returns the number of samples. A repetition continues with the shards that are missing.

    Raises DataError for an augmentation that the layout does not have, or a shard that has changed; OSError.
    """
    version, index = open_version(store, dataset, number)
    stored = StoredReinforcement.open(store, reinforcement_folder(dataset, number, id))
    expect_expressible(stored.document.augment)
    if stored.document.captions == "first":
        raise DataError("only first captions have embeddings, and the layout has those of all captions", field="captions")
    samples = 0
    for shard, row in enumerate(index.shards):
        name = f"{shard:08d}.tar"
        if row.pairs and not out.exists(name):
            with tempfile.TemporaryDirectory(prefix="tinyclip-datacompdr-") as folder:
                path = Path(folder) / name
                samples += _write_shard(path, shard, version, index, stored)
                out.put_file(path, name)
    out.write_bytes("config.json", json.dumps(config_of(stored.document), indent=1).encode())
    return samples


def expect_expressible(augment: ImageAugmentation) -> None:
    """Raise DataError naming the settings that the layout does not have."""
    plain = ImageAugmentation(crop_scale=augment.crop_scale)
    if warps(augment) or recolors(augment):
        names = [name for name in ImageAugmentation.model_fields if getattr(augment, name) != getattr(plain, name)]
        raise DataError(
            f"the layout has crops and RandAugment, this reinforcement also {', '.join(names)}; make one with crop_scale alone",
            field="augment",
        )


def config_of(document: ReinforcementDocument) -> dict[str, Any]:
    """Return the configuration that replays the views."""
    first = document.teachers[0]
    return {
        "model_name": ",".join(teacher.name for teacher in document.teachers),
        "num_samples": document.augmentations,
        "reinforce": {"image_augmentation": {
            "normalize": {"mean": first.image_mean, "std": first.image_std},
            "rand_augment": {"enable": True, "p": 1.0},
            "random_resized_crop": {"interpolation": "bicubic", "size": first.image_size},
            "to_rgb": {"enable": True},
            "to_tensor": {"enable": True},
        }},
    }  # fmt: skip


def _write_shard(path: Path, shard: int, version: DatasetVersion, index: DatasetIndex, stored: StoredReinforcement) -> int:
    """Write one shard; returns its samples. Raises DataError, OSError."""
    samples, count = index.load_samples(shard), 0
    with tarfile.open(path, "w") as tar:
        for row, sample in read_training_samples(index.shards[shard].url, samples):
            if stored.view(shard, row, 0) is None:
                continue
            if upright_transpose(open_image(image_bytes(sample, version.source.image_key))) is not None:
                continue
            captions, more = captions_of(sample, version.source.caption_key), samples.more_captions(row)
            for extension, data in _files(stored, shard, row, sample, captions, more, version.source.image_key):
                member = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            count += 1
    return count


def _files(
    stored: StoredReinforcement, shard: int, row: int, sample: Sample, captions: list[str], more: list[str], image_key: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield extension and content of a sample's files."""
    views = [stored.view(shard, row, epoch) for epoch in range(stored.document.augmentations)]
    targets = [stored.targets(shard, row, epoch, captions[0]) for epoch in range(len(views))]
    image_KE = torch.stack([torch.cat([image for image, _ in each]) for each in targets])
    texts = [stored.targets(shard, row, 0, caption) for caption in (*captions, *more)]
    text_ME = torch.stack([torch.cat([text for _, text in each]) for each in texts])
    data = image_bytes(sample, image_key)
    yield next(key for key in image_key if key in sample), data
    yield "txt", captions[0].encode()
    if len(captions) > 1:
        yield "json", json.dumps({"captions": captions}).encode()
    yield SYNTHETIC, json.dumps({"syn_text": more}).encode()
    yield VIEWS, json.dumps({"param_aug": [_view(view) for view in views if view is not None]}).encode()
    yield _embeddings(image_KE, text_ME)


def _view(view: StoredView) -> list[Any]:
    """Return a view as the layout has it."""
    crop = crop_of(view.view)
    return [[crop.top, crop.left, crop.height, crop.width], [list(operation) for operation in view.operations] or None]


def _embeddings(image_KE: torch.Tensor, text_ME: torch.Tensor) -> tuple[str, bytes]:
    file = io.BytesIO()
    if image_KE.dtype == torch.bfloat16:
        torch.save({"image_emb": image_KE, "text_emb": text_ME}, file)
        return TENSORS, gzip.compress(file.getvalue(), mtime=0)
    np.savez(file, image_emb=image_KE.numpy(), text_emb=text_ME.numpy())
    return ARRAYS, file.getvalue()


if __name__ == "__main__":
    main()
