"""Small random students in open_clip's layout, images and shards for the tests of serving and indexing."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers import jobs
from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.types import Pixels

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def write_student(folder: Path, *, seed: int = 0, image_size: int = 32) -> Path:
    """Write a random ViT student; its preprocessing is unusual, so that an ignored setting is noticed."""
    torch.manual_seed(seed)
    model_cfg: dict[str, Any] = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": image_size, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    model = open_clip.CLIP(**model_cfg)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess_cfg = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def random_image(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def square_of(image: Image.Image, size: int = 32) -> Pixels:
    """Return the image as a student's input."""
    return decode_square(encoded(image), size)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def base64_image(seed: int) -> str:
    return base64.b64encode(encoded(random_image(seed))).decode()


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """Write a tar with each sample's files by extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def build_index(root: Path, name: str, model: str, folder: Path, shard: Path) -> None:
    """Build an index of a shard's images in an artifacts store, as the index job does."""
    request = {
        "name": name, "job": "b1", "build": 1, "model": model, "model_uri": str(folder), "embed_dim": 24,
        "source": {"shards": str(shard)},
    }  # fmt: skip
    ArtifactsStore(str(root)).write_bytes(f"indexes/{name}/request.json", json.dumps(request).encode())
    assert jobs.main(["index", "--artifacts", str(root), "--index", name, "--job", "b1"]) == 0
