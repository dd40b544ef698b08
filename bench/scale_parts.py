"""The parts of a large run that `docs/scale.md` counts with, each measured with the real code: `bench/scale.py --parts FOLDER`.

Shapes: B local batch, N global batch, E embedding size, K views.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tinyclip.artifacts.paths import reinforcement_images, reinforcement_texts
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.spec import DataSpec
from tinyclip_workers.data.index.dataset_index import index_shards
from tinyclip_workers.data.index.rows import to_parquet
from tinyclip_workers.data.index.scanning import scan_shard
from tinyclip_workers.data.reinforcement import file_format
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.reinforcement.tensor_files import NewTensorFile
from tinyclip_workers.data.reinforcement.texts import TextTable, hash_of
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.training.objective import losses
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings
from tinyclip_workers.training.objective.terms import EmbeddedBatch, objective_terms, weighted_sum
from torch import Tensor

N, E = 32_768, 512
LOCAL = (128, 512, 1024)
"""Local batches at which the memory of the losses is measured. Between the large ones it grows by as many matrices (B, N) as the
losses need; at small ones the gathered embeddings (N, E) are a large part of it."""
OBJECTIVE = {"affinity": 1.0, "feature_mimicry": 1.0}
VIEWS, BLOCK_ROWS, SHARD_ROWS = 5, 280, 10_000
IMAGES, SIZE, QUALITY = 1536, (500, 375), 90


def measure(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a result line for each part; FOLDER has the shards `train-*.tar` with `jpg` and `txt` files."""
    torch.set_num_threads(1)
    yield registration(folder)
    yield loader(folder)
    yield similarity()
    yield reinforcement()


def registration(folder: Path) -> dict[str, Any]:
    """Scan real shards, which reads, hashes and opens every sample."""
    train, started = spec_of(folder).train, time.process_time()
    scanned = [scan_shard(url, train) for url in sorted(map(str, folder.glob("train-*.tar")))]
    seconds = time.process_time() - started
    samples = sum(each.shard.samples for each in scanned)
    index_bytes = sum(len(to_parquet(each.samples)) for each in scanned)
    return {
        "kind": "registration", "set": folder.name, "samples": samples, "bytes": sum(each.shard.bytes for each in scanned),
        "cpu_seconds": round(seconds, 3), "index_bytes_per_sample": round(index_bytes / samples, 2),
    }  # fmt: skip


def loader(folder: Path) -> dict[str, Any]:
    """Read, decode, crop and tokenize pairs as a loader process does: real pictures, scaled to the size of web images."""
    tokenizer = make_tokenizer(PRESETS["ViT-B-32"])
    with tempfile.TemporaryDirectory() as scaled:
        written = write_scaled(folder, Path(scaled) / "train-0.tar")
        spec = spec_of(Path(scaled))
        started = time.process_time()
        index = index_shards(spec.train)
        scanning = time.process_time() - started
        stream = PairStream(
            spec, index, batch_size=64, image_size=224, tokenize=SingleTextTokenizer(tokenizer), seed=0
        )
        parts = stream._parts(stream.slots)
        next(parts)
        started = time.process_time()
        images = sum(len(part.samples_B) for part in islice(parts, 2 * (IMAGES // 64)))
        seconds = time.process_time() - started
    return {
        "kind": "loader", "set": folder.name, "size": SIZE, "mean_bytes": written // IMAGES, "images": images,
        "images_per_cpu_second": round(images / seconds, 1), "scan_cpu_ms_per_sample": round(1000 * scanning / IMAGES, 4),
    }  # fmt: skip


def write_scaled(folder: Path, target: Path) -> int:
    """Write pictures and captions, scaled; return the bytes of the pictures."""
    total = 0
    samples = chain.from_iterable(read_shard(str(url)) for url in sorted(folder.glob("train-*.tar")))
    with tarfile.open(target, "w") as tar:
        for number, sample in enumerate(islice(samples, IMAGES)):
            picture = io.BytesIO()
            with Image.open(io.BytesIO(sample["jpg"])) as image:
                image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC).save(picture, "JPEG", quality=QUALITY)
            total += picture.tell()
            for extension, content in (("jpg", picture.getvalue()), ("txt", sample["txt"])):
                info = tarfile.TarInfo(f"{number:06d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return total


def spec_of(folder: Path) -> DataSpec:
    return DataSpec.model_validate({"train": {"shards": str(folder / "train-*.tar"), "image_key": ["jpg"]}})


def similarity() -> dict[str, Any]:
    """Measure the peak of the losses' memory for two local batches, each in a process of its own."""
    peaks = {}
    for local in LOCAL:
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); from bench import scale_parts as s; "
        command = [sys.executable, "-c", code + f"print(s.loss_memory({local}))"]
        peaks[local] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    _, small, large = LOCAL
    matrices = (peaks[large] - peaks[small]) / ((large - small) * N * 4)
    return {
        "kind": "losses", "objective": OBJECTIVE, "global_batch": N, "embed_dim": E,
        "peak_bytes": {str(local): peak for local, peak in peaks.items()}, "fp32_matrices": round(matrices, 2),
    }  # fmt: skip


def loss_memory(local: int) -> int:
    """Return the peak of memory, in bytes, that the terms and their gradients add for one worker of N / `local`."""
    torch.set_num_threads(1)
    student = [F.normalize(torch.randn(local, E), dim=1).requires_grad_() for _ in range(2)]
    teacher = [F.normalize(torch.randn(local, E), dim=1) for _ in range(2)]
    rest_ND = F.normalize(torch.randn(N - local, E), dim=1)

    def gather(x_BE: Tensor) -> Tensor:  # the rows of the other workers are there already
        return torch.cat([x_BE, rest_ND])

    before = status("VmRSS")
    with patch.object(losses, "gather", gather), patch.object(losses, "gather_with_gradient", gather):
        batch = EmbeddedBatch(
            StudentEmbeddings(student[0], student[1], 50.0), [TeacherEmbeddings(teacher[0], teacher[1], 100.0)]
        )
        weighted_sum(OBJECTIVE, objective_terms(OBJECTIVE, batch)).backward()
    assert student[0].grad is not None
    return status("VmHWM") - before


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10


def reinforcement() -> dict[str, Any]:
    """Write one shard of a reinforcement (K = 5 views, one text a sample) and read a block of it as from a remote store."""
    captions = [f"a caption of sample {row}" for row in range(SHARD_ROWS)]
    table = TextTable.of(0, map(hash_of, captions))
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactsStore(folder)
        images = NewTensorFile(Path(folder) / "i", file_format.image_shapes(VIEWS, SHARD_ROWS, [E], "bf16"))
        images[file_format.ROWS][:], images[file_format.USABLE][:] = np.arange(SHARD_ROWS), 1
        texts = NewTensorFile(Path(folder) / "t", file_format.text_shapes(SHARD_ROWS, SHARD_ROWS, [E], "bf16"))
        texts[file_format.HASHES][:], texts[file_format.OWNERS][:] = table.hashes_2M, table.owners_M
        texts[file_format.PLACES][:], texts[file_format.KEPT][:] = table.places_M, np.arange(SHARD_ROWS)
        sizes = images.save(store, reinforcement_images("r", 0)), texts.save(store, reinforcement_texts("r", 0))
        requests = list(read_block(store, captions))
    return {
        "kind": "reinforcement", "views": VIEWS, "embed_dim": E, "samples": SHARD_ROWS, "bytes_of_images": sizes[0],
        "bytes_of_texts": sizes[1], "block_rows": BLOCK_ROWS, "block_requests": len(requests), "block_bytes": sum(requests),
    }  # fmt: skip


def read_block(store: ArtifactsStore, captions: list[str]) -> list[int]:
    """Return the sizes of the requests for the view and the targets of each sample in a block."""
    document: Any = SimpleNamespace(augmentations=VIEWS, dtype="bf16", id="r", teachers=[0])
    requests: list[int] = []
    read = ArtifactsStore.read_range

    def counting(self: ArtifactsStore, path: str, start: int, end: int) -> bytes:
        data = read(self, path, start, end)
        requests.append(len(data))
        return data

    stored = StoredReinforcement(store.root, "r", document)
    with patch.object(ArtifactsStore, "local_path", lambda *_: None), patch.object(ArtifactsStore, "read_range", counting):
        for row in range(3 * BLOCK_ROWS, 4 * BLOCK_ROWS):
            stored.view(0, row, 7)
            stored.targets(0, row, 7, captions[row])
    return requests
