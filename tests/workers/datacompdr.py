"""Shards in DataCompDR's layout, made as its published code makes them: torchvision's transforms on PIL images."""

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tinyclip_workers.data.datacompdr import OPERATIONS
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import normalize
from tinyclip_workers.model.towers import encode_text, normalized
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from tests.workers.students import encoded, write_shard


def random_view(image: Image.Image, size: int, rng: np.random.Generator) -> tuple[Image.Image, list[Any]]:
    """Crop and augment an image; returns it, and the parameters as they are published."""
    torch.manual_seed(int(rng.integers(1 << 30)))
    top, left, height, width = RandomResizedCrop.get_params(image, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    cropped = F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BICUBIC)
    space = RandAugment()._augmentation_space(31, (size, size))
    operations = []
    for number in rng.integers(len(OPERATIONS), size=2).tolist():
        magnitudes, signed = space[OPERATIONS[number]]
        magnitude = float(magnitudes[9]) if magnitudes.ndim else 0.0
        magnitude *= -1 if signed and rng.random() < 0.5 else 1
        cropped = _apply_op(cropped, OPERATIONS[number], magnitude, InterpolationMode.NEAREST, None)
        operations.append([number, magnitude])
    return cropped, [[top, left, height, width], operations]


@torch.no_grad()
def published_files(
    jpeg: bytes, captions: Sequence[str], synthetic: Sequence[str], teachers: Sequence[LoadedModel], views: int,
    rng: np.random.Generator, *, tensors: bool = False, as_text: bool = False,
) -> dict[str, bytes]:  # fmt: skip
    """Return the files of a sample. Teachers have one preprocessing, as in the published set."""
    size, first = teachers[0].layout.image_size, teachers[0]
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    drawn = [random_view(image, size, rng) for _ in range(views)]
    pixels = torch.from_numpy(np.stack([np.asarray(each) for each, _ in drawn])).permute(0, 3, 1, 2)
    inputs = normalize(pixels, first.image_mean, first.image_std)
    image_KE = torch.cat([normalized(teacher.model.encode_image(inputs)) for teacher in teachers], dim=1)
    tokens = first.tokenizer([*captions, *synthetic])
    text_ME = torch.cat([normalized(encode_text(teacher.model, tokens)) for teacher in teachers], dim=1)
    parameters: Any = [parameters for _, parameters in drawn]
    files = {
        "jpg": jpeg, "txt": captions[0].encode(),
        "syn.json": json.dumps({"syn_text": list(synthetic)}).encode(),
        "paug.json": json.dumps({"param_aug": json.dumps(parameters) if as_text else parameters}).encode(),
    }  # fmt: skip
    file = io.BytesIO()
    if tensors:
        torch.save({"image_emb": image_KE.bfloat16(), "text_emb": text_ME.bfloat16()}, file)
        return files | {"pth.gz": gzip.compress(file.getvalue())}
    np.savez(file, image_emb=image_KE.numpy(), text_emb=text_ME.numpy())
    return files | {"npz": file.getvalue()}


def smooth_jpeg(seed: int, sides: tuple[int, int] = (120, 96)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels).resize(sides, Image.Resampling.BICUBIC), "JPEG", quality=95)


def write_published(path: Path, teachers: Sequence[LoadedModel], count: int, views: int = 3, **layout: bool) -> str:
    """Write a shard; images are those that its JPEG files decode to."""
    rng, samples = np.random.default_rng(0), {}
    for number in range(count):
        caption, synthetic = f"picture number {number}", [f"a synthetic text {number % 3}", f"another one of {number}"]
        samples[f"{number:05d}"] = published_files(smooth_jpeg(number), [caption], synthetic, teachers, views, rng, **layout)
    return str(write_shard(path, samples))
