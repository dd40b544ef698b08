"""Quality and speed of each serving engine: `python bench/engines.py [--out bench/results/engines.json]`.

For the two teachers of `examples/emoji`: zero-shot top-1 (98 subgroups, 9 groups) and retrieval on the validation style, and the
mean cosine to torch in fp32 there. int8 is calibrated on training images, sampled as in a job. Then images per second of
processor time, with one thread, at batch 1, 8 and 32; also for TinyCLIP-ViT-8M-16-Text-3M at 224 px with random weights, whose
quality is not measured.
"""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import cpu
from rich.console import Console
from rich.table import Table
from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import RetrievalTask, ZeroShotTask
from tinyclip.specfile import load_spec
from tinyclip_workers.data.decoding import decode_square
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample, image_bytes, text_field
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.engines.builder import ON_CPU, EngineBuilder
from tinyclip_workers.engines.calibration import sample_calibration_images
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.evaluation import metrics
from tinyclip_workers.evaluation.labels import ClassRows, fill_template, retrieval_captions, task_lines
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.types import Pixels

EXAMPLES = Path(__file__).parent.parent / "examples" / "emoji"
RANDOM = "TinyCLIP-ViT-8M-16-Text-3M"
TASKS = ("style-subgroup", "style-group")
BATCHES = (1, 8, 32)
SECONDS = 1.0
"""Time for each engine and batch size."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = JobSpec.model_validate(load_spec(EXAMPLES / "half.yaml", []))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in ("vit", "resnet"):
            loaded = load_folder(str(EXAMPLES / "teachers" / name))
            images = sample_calibration_images(spec.data, loaded.layout.image_size)
            rows += measure(f"emoji teacher {name}", EngineBuilder(loaded, images, cache=Path(cache)), arguments.seconds, spec)
        builder = EngineBuilder(random_model(), noise(64, 224), cache=Path(cache))
        rows += measure(f"{RANDOM}, random", builder, arguments.seconds, None)
    print_table(rows)
    if arguments.out:
        facts = {"machine": cpu(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": 1, "torch": torch.__version__}
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def measure(model: str, builder: EngineBuilder, seconds: float, spec: JobSpec | None) -> list[Row]:
    """Return a row for each engine. They are timed in turns, so that other load on the machine affects all alike."""
    engines = {name: builder.build(name, builder.report(name, name)) for name in ON_CPU}
    rates = measure_rates(engines, builder.loaded.layout.image_size, seconds)
    quality = measure_quality(engines, spec) if spec else {name: {} for name in engines}
    return [{"model": model, "engine": name, "images_per_cpu_second": rates[name], **quality[name]} for name in engines]


def measure_rates(engines: dict[str, Engine], size: int, seconds: float) -> dict[str, list[float]]:
    """Return images per second for each batch size, from the fastest call: other programs share the machine."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for batch in BATCHES:
        images, best = noise(batch, size), dict.fromkeys(engines, float("inf"))
        until = time.perf_counter() + seconds * len(engines)
        while time.perf_counter() < until:
            for name, engine in engines.items():
                started = time.process_time()
                engine.encode_image(images)
                best[name] = min(best[name], time.process_time() - started)
        for name in engines:
            rates[name].append(round(batch / best[name], 1))
    return rates


def measure_quality(engines: dict[str, Engine], spec: JobSpec) -> dict[str, Row]:
    zero_shot, groups = (task for task in spec.evaluation.tasks if isinstance(task, ZeroShotTask) and task.name in TASKS)
    retrieval = next(task for task in spec.evaluation.tasks if isinstance(task, RetrievalTask))
    samples = list(read_shards(expand_shards(zero_shot.shards), Skipped()))
    images_NSSC = np.stack([decode_square(image_bytes(s, zero_shot.image_key), engines["torch"].image_size) for s in samples])
    found, reference_NE = {}, embed(engines["torch"], images_NSSC)
    for name, engine in engines.items():
        image_NE = embed(engine, images_NSSC)
        found[name] = {
            "top1": zero_shot_score(engine, zero_shot, samples, torch.from_numpy(image_NE)),
            "top1_groups": zero_shot_score(engine, groups, samples, torch.from_numpy(image_NE)),
            **retrieval_scores(engine, retrieval, samples, torch.from_numpy(image_NE)),
            "cosine": round(float((image_NE * reference_NE).sum(axis=1).mean()), 5),
            "centred_cosine": round(float((centre(image_NE) * centre(reference_NE)).sum(axis=1).mean()), 5),
        }
    return found


def embed(engine: Engine, images_NSSC: Pixels) -> np.ndarray:
    return np.concatenate([engine.encode_image(images_NSSC[i : i + 32]) for i in range(0, len(images_NSSC), 32)])


def centre(rows_NE: np.ndarray) -> np.ndarray:
    """Subtract the mean embedding: the stricter comparison."""
    rows_NE = rows_NE - rows_NE.mean(axis=0)
    return rows_NE / np.linalg.norm(rows_NE, axis=1, keepdims=True)


def zero_shot_score(engine: Engine, task: ZeroShotTask, samples: list[Sample], image_NE: torch.Tensor) -> float:
    classes, templates = task_lines(task.classes or []), task_lines(task.templates or [])
    texts = [fill_template(template, name) for template in templates for name in classes]
    text_TCE = torch.from_numpy(engine.encode_text(texts)).view(len(templates), len(classes), -1)
    rows = ClassRows(classes)
    labels_N = torch.tensor([rows.row(text_field(sample, task.label_key)) for sample in samples])
    scores = metrics.classification(image_NE @ metrics.class_embeddings(text_TCE).T, labels_N)
    return round(100 * scores["top1"], 2)


def retrieval_scores(engine: Engine, task: RetrievalTask, samples: list[Sample], image_NE: torch.Tensor) -> Row:
    row: dict[str, int] = {}
    rows = [[row.setdefault(text, len(row)) for text in retrieval_captions(s, task.caption_key)] for s in samples]
    texts = list(row)
    text_ME = np.concatenate([engine.encode_text(texts[i : i + 64]) for i in range(0, len(texts), 64)])
    return {"r10": round(100 * metrics.retrieval(image_NE, torch.from_numpy(text_ME), rows)["text_to_image_r10"], 2)}


def random_model() -> LoadedModel:
    torch.manual_seed(0)
    layout = PRESETS[RANDOM]
    return LoadedModel(build_model(layout).eval(), layout, make_tokenizer(layout), OPENAI_MEAN, OPENAI_STD, RANDOM, "random 0")


def noise(count: int, size: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def print_table(rows: list[Row]) -> None:
    table = Table(title="one thread")
    qualities = ("top-1", "of groups", "R@10", "cosine", "centred")
    for column in ("model", "engine", *qualities, *(f"img/CPU-s, batch {b}" for b in BATCHES)):
        table.add_column(column, justify="left" if column in ("model", "engine") else "right")
    for row in rows:
        quality = [str(row.get(key, "")) for key in ("top1", "top1_groups", "r10", "cosine", "centred_cosine")]
        table.add_row(row["model"], row["engine"], *quality, *map(str, row["images_per_cpu_second"]))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
