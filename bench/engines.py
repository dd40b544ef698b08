"""What each serving engine gives and costs: `python bench/engines.py [--out bench/results/engines.json]`.

Of the two teachers of `examples/emoji`: zero-shot top-1 (of 98 subgroups and of 9 groups) and retrieval on the validation style,
and the mean cosine to torch in fp32 there. int8 is calibrated on training pictures, as a job would keep them. Then images per
second of processor time, one thread, at batch 1, 8 and 32; also of TinyCLIP-ViT-8M-16-Text-3M at 224 px with random weights,
whose quality means nothing.
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
from tinyclip_workers.data.shards import Sample, Skipped, expand_shards, image_bytes, read_shards
from tinyclip_workers.engines.builder import ON_CPU, EngineBuilder
from tinyclip_workers.engines.calibration import sample_calibration_images
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.evaluation import metrics
from tinyclip_workers.evaluation.tasks import fill_template, label_index, label_of, retrieval_captions, task_lines
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.folders import LoadedModel, load_folder, make_tokenizer
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.presets import PRESETS
from tinyclip_workers.types import Pixels

EXAMPLES = Path(__file__).parent.parent / "examples" / "emoji"
RANDOM = "TinyCLIP-ViT-8M-16-Text-3M"
TASKS = ("style-subgroup", "style-group")
BATCHES = (1, 8, 32)
SECONDS = 1.0
"""Of timing, an engine and batch."""

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
            pictures = sample_calibration_images(spec.data, loaded.layout.image.image_size)
            rows += measured(f"emoji teacher {name}", EngineBuilder(loaded, pictures, cache=Path(cache)), arguments.seconds, spec)
        builder = EngineBuilder(random_model(), noise(64, 224), cache=Path(cache))
        rows += measured(f"{RANDOM}, random", builder, arguments.seconds, None)
    show(rows)
    if arguments.out:
        facts = {"machine": cpu(), "date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": 1, "torch": torch.__version__}
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def measured(model: str, builder: EngineBuilder, seconds: float, spec: JobSpec | None) -> list[Row]:
    """A row an engine; those of one model are timed in turns, so that a busy moment of the machine hits all alike."""
    engines = {name: builder.build(name, builder.report(name, name)) for name in ON_CPU}
    rates = timed(engines, builder.loaded.layout.image.image_size, seconds)
    quality = qualities(engines, spec) if spec else {name: {} for name in engines}
    return [{"model": model, "engine": name, "images_per_cpu_second": rates[name], **quality[name]} for name in engines]


def timed(engines: dict[str, Engine], size: int, seconds: float) -> dict[str, list[float]]:
    """By batch: of the fastest call, as others share the machine."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for batch in BATCHES:
        pictures, best = noise(batch, size), dict.fromkeys(engines, float("inf"))
        until = time.perf_counter() + seconds * len(engines)
        while time.perf_counter() < until:
            for name, engine in engines.items():
                began = time.process_time()
                engine.encode_image(pictures)
                best[name] = min(best[name], time.process_time() - began)
        for name in engines:
            rates[name].append(round(batch / best[name], 1))
    return rates


def qualities(engines: dict[str, Engine], spec: JobSpec) -> dict[str, Row]:
    zero_shot, groups = (task for task in spec.evaluation.tasks if isinstance(task, ZeroShotTask) and task.name in TASKS)
    retrieval = next(task for task in spec.evaluation.tasks if isinstance(task, RetrievalTask))
    samples = list(read_shards(expand_shards(zero_shot.shards), Skipped()))
    pictures_NSSC = np.stack([decode_square(image_bytes(s, zero_shot.image_key), engines["torch"].image_size) for s in samples])
    found, reference_NE = {}, embedded(engines["torch"], pictures_NSSC)
    for name, engine in engines.items():
        image_NE = embedded(engine, pictures_NSSC)
        found[name] = {
            "top1": zero_shot_score(engine, zero_shot, samples, torch.from_numpy(image_NE)),
            "top1_groups": zero_shot_score(engine, groups, samples, torch.from_numpy(image_NE)),
            **retrieval_scores(engine, retrieval, samples, torch.from_numpy(image_NE)),
            "cosine": round(float((image_NE * reference_NE).sum(axis=1).mean()), 5),
            "centred_cosine": round(float((centred(image_NE) * centred(reference_NE)).sum(axis=1).mean()), 5),
        }
    return found


def embedded(engine: Engine, pictures_NSSC: Pixels) -> np.ndarray:
    return np.concatenate([engine.encode_image(pictures_NSSC[i : i + 32]) for i in range(0, len(pictures_NSSC), 32)])


def centred(rows_NE: np.ndarray) -> np.ndarray:
    """Without what all pictures have in common: the harsher test."""
    rows_NE = rows_NE - rows_NE.mean(axis=0)
    return rows_NE / np.linalg.norm(rows_NE, axis=1, keepdims=True)


def zero_shot_score(engine: Engine, task: ZeroShotTask, samples: list[Sample], image_NE: torch.Tensor) -> float:
    classes, templates = task_lines(task.classes or []), task_lines(task.templates or [])
    texts = [fill_template(template, name) for template in templates for name in classes]
    text_TCE = torch.from_numpy(engine.encode_text(texts)).view(len(templates), len(classes), -1)
    labels_N = torch.tensor([label_index(label_of(sample, task.label_key), classes) for sample in samples])
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


def show(rows: list[Row]) -> None:
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
