"""What is left of a model's accuracy in every export: the emoji teachers on the validation set, beside torch in fp32.

    python bench/exports.py [--models vit resnet] [--exports onnx-int8 …] [--out bench/results/exports.jsonl]

Shapes: B batch, S image size, E embedding size.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from tinyclip.schemas import ExportFormat, JobSpec
from tinyclip.schemas.exports import QUANTISABLE, export_name, unavailable_formats
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.exporting.check import Opened
from tinyclip_workers.exporting.formats import make_export, writer_and_reader
from tinyclip_workers.exporting.samples import gather
from tinyclip_workers.model.folders import LoadedModel, load_folder
from torch import Tensor, nn

EMOJI = Path(__file__).parents[1] / "examples" / "emoji"
TASKS = ("style-subgroup", "style-group", "style-retrieval")
METRICS = {"style-subgroup": "top1", "style-group": "top1", "style-retrieval": "text_to_image_r10"}
MOST_LOST = 0.005


class Exported(nn.Module):
    """An export in the place of a model: what evaluation asks for, answered by the format's library."""

    def __init__(self, opened: Opened, loaded: LoadedModel) -> None:
        super().__init__()
        self._opened, self._mean, self._std = opened, loaded.image_mean, loaded.image_std
        self.logit_scale = nn.Parameter(loaded.model.logit_scale.detach().clone(), requires_grad=False)
        self.asked: list[str] = []

    def encode_image(self, images_BCSS: Tensor) -> Tensor:
        """Of normalised pixels, made uint8 again first: every format has its own way to normalise them."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._mean, self._std))
        pixels_BCSS = ((images_BCSS * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return torch.from_numpy(self._opened.images(pixels_BCSS))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Of the texts that `read` was given last: exports have tokenizers of their own."""
        return torch.from_numpy(self._opened.texts(self.asked))

    def read(self, texts: str | Sequence[str]) -> Tensor:
        self.asked = [texts] if isinstance(texts, str) else list(texts)
        return torch.zeros(len(self.asked), 1, dtype=torch.int64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit", "resnet"], choices=["vit", "resnet"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exports.jsonl")
    parser.add_argument("--exports", nargs="+", help="only these, as onnx-int8; by default all that the model can have")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lost = 0
    for name in args.models:
        lost += measure(name, args.out, args.exports)
    return 1 if lost else 0


def measure(name: str, out: Path, only: Sequence[str] | None) -> int:
    """All formats of one teacher; returns how many have lost more than is allowed."""
    document = yaml.safe_load((EMOJI / f"teacher-{name}.yaml").read_text())
    tasks = [task for task in _spec(document).evaluation.tasks if task.name in TASKS]
    loaded = load_folder(str(EMOJI / "teachers" / name))
    samples = gather(_training_pictures(tasks), None)
    wanted = [(each, False) for each in ExportFormat] + [(each, True) for each in QUANTISABLE]
    wanted = [(each, int8) for each, int8 in wanted if each not in unavailable_formats(loaded.layout)]
    wanted = [each for each in wanted if only is None or export_name(*each) in only]
    plain = _scores({"torch": loaded}, tasks)["torch"]
    _tell(out, name, "torch fp32", plain, plain, None)
    lost = 0
    for format, int8 in wanted:
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            made = make_export(loaded, format, Path(folder), samples, int8=int8)
            seconds = time.process_time() - start
            model = Exported(writer_and_reader(format)[1](Path(folder)), loaded)
            there = replace(loaded, model=model, tokenizer=model.read)  # type: ignore[arg-type]
            scores = _scores({"export": there}, tasks)["export"]
        facts = {
            "mb": round(sum(file.bytes for file in made.files) / 1e6, 1), "cpu_seconds": round(seconds, 1),
            "image_cosine": made.check.image.mean_cosine, "text_cosine": made.check.text.mean_cosine,
            "calibrated_on": made.check.calibrated_on, "made_with": made.made_with,
        }
        lost += _tell(out, name, export_name(format, int8), scores, plain, facts)
    return lost


def _spec(document: dict[str, Any]) -> JobSpec:
    """The example's spec with paths that are true from anywhere."""
    for task in document["evaluation"]["tasks"]:
        for field in ("shards", "classes"):
            if isinstance(task.get(field), str):
                task[field] = str(EMOJI / task[field])
    return JobSpec.model_validate(document)


def _training_pictures(tasks: Sequence[Any]) -> list[Any]:
    """int8 is calibrated on pictures that it is not measured on."""
    return [task.model_copy(update={"shards": str(EMOJI / "data" / "train-{000000..000003}.tar.gz")}) for task in tasks[:1]]


def _scores(models: dict[str, Any], tasks: Sequence[Any]) -> dict[str, dict[str, float]]:
    found = evaluate_tasks(models, tasks)
    return {model: {task: found[task][model][METRICS[task]] for task in METRICS} for model in models}


def _tell(out: Path, model: str, export: str, scores: dict[str, float], plain: dict[str, float], facts: Any) -> int:
    """Print a row of the table and keep it; 1 if it has lost more than is allowed."""
    least = min(scores[task] - plain[task] for task in scores)
    cells = " | ".join(f"{100 * scores[task]:.2f} ({100 * (scores[task] - plain[task]):+.2f})" for task in METRICS)
    print(f"| {model} | {export} | {cells} | {facts['mb'] if facts else ''} |", flush=True)
    line = {
        "model": model, "export": export, "scores": scores, "lost": {task: plain[task] - scores[task] for task in scores},
        "facts": facts, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
    }
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return int(least < -MOST_LOST)


if __name__ == "__main__":
    sys.exit(main())
