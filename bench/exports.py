"""Measure the accuracy of every export of the emoji teachers on the validation set, beside torch in fp32.

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
from tinyclip.schemas import ExportFormat, ExportOptions, JobSpec
from tinyclip.schemas.exports import QUANTISABLE, export_name, unavailable_formats
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.exporting.check import ExportedModel
from tinyclip_workers.exporting.exporter import create_export, format_functions
from tinyclip_workers.exporting.samples import gather_samples
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from torch import Tensor, nn

EMOJI = Path(__file__).parents[1] / "examples" / "emoji"
TASKS = ("style-subgroup", "style-group", "style-retrieval")
METRICS = {"style-subgroup": "top1", "style-group": "top1", "style-retrieval": "text_to_image_r10"}
MAX_LOSS = 0.005


class ExportAsModel(nn.Module):
    """An export with the interface of a model that evaluation uses."""

    def __init__(self, exported: ExportedModel, loaded: LoadedModel) -> None:
        super().__init__()
        self._exported, self._mean, self._std = exported, loaded.image_mean, loaded.image_std
        self.logit_scale = nn.Parameter(loaded.model.logit_scale.detach().clone(), requires_grad=False)
        self._texts: list[str] = []

    def encode_image(self, images_BCSS: Tensor) -> Tensor:
        """Convert normalized pixels back to uint8 and encode them: every format normalizes in its own way."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._mean, self._std))
        pixels_BCSS = ((images_BCSS * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return torch.from_numpy(self._exported.encode_pixels(pixels_BCSS))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode the last texts passed to `tokenize`: exports have their own tokenizers."""
        return torch.from_numpy(self._exported.encode_texts(self._texts))

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        self._texts = [texts] if isinstance(texts, str) else list(texts)
        return torch.zeros(len(self._texts), 1, dtype=torch.int64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit", "resnet"], choices=["vit", "resnet"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exports.jsonl")
    parser.add_argument("--exports", nargs="+", help="measure only these, for example onnx-int8; by default all available ones")
    args = parser.parse_args()
    torch.set_num_threads(1)
    failures = sum(measure(name, args.out, args.exports) for name in args.models)
    return 1 if failures else 0


def measure(name: str, out: Path, only: Sequence[str] | None) -> int:
    """Measure all formats of one teacher; return how many lose more accuracy than allowed."""
    document = yaml.safe_load((EMOJI / f"teacher-{name}.yaml").read_text())
    tasks = [task for task in _spec(document).evaluation.tasks if task.name in TASKS]
    loaded = load_folder(str(EMOJI / "teachers" / name))
    samples = gather_samples(_calibration_tasks(tasks), None)
    exports = [(each, ExportOptions()) for each in ExportFormat] + [(each, ExportOptions(int8=True)) for each in QUANTISABLE]
    exports = [each for each in exports if each[0] not in unavailable_formats(loaded.layout)]
    exports = [each for each in exports if only is None or export_name(*each) in only]
    baseline = _scores({"torch": loaded}, tasks)["torch"]
    _record(out, name, "torch fp32", baseline, baseline, None)
    failures = 0
    for format, options in exports:
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            document = create_export(loaded, format, Path(folder), samples, options)
            seconds = time.process_time() - start
            model = ExportAsModel(format_functions(format).load(Path(folder)), loaded)
            exported = replace(loaded, model=model, tokenizer=model.tokenize)  # type: ignore[arg-type]
            scores = _scores({"export": exported}, tasks)["export"]
        facts = {
            "mb": round(sum(file.bytes for file in document.files) / 1e6, 1), "cpu_seconds": round(seconds, 1),
            "image_cosine": document.check.image.mean_cosine, "text_cosine": document.check.text.mean_cosine,
            "calibrated_on": document.check.calibrated_on, "made_with": document.made_with,
        }
        failures += _record(out, name, export_name(format, options), scores, baseline, facts)
    return failures


def _spec(document: dict[str, Any]) -> JobSpec:
    """Return the example's spec with absolute paths."""
    for task in document["evaluation"]["tasks"]:
        for field in ("shards", "classes"):
            if isinstance(task.get(field), str):
                task[field] = str(EMOJI / task[field])
    return JobSpec.model_validate(document)


def _calibration_tasks(tasks: Sequence[Any]) -> list[Any]:
    """Return a task over training shards: int8 is not calibrated with the images that it is measured with."""
    return [task.model_copy(update={"shards": str(EMOJI / "data" / "train-{000000..000003}.tar.gz")}) for task in tasks[:1]]


def _scores(models: dict[str, Any], tasks: Sequence[Any]) -> dict[str, dict[str, float]]:
    found = evaluate_tasks(models, tasks)
    return {model: {task: found[task][model][METRICS[task]] for task in METRICS} for model in models}


def _record(out: Path, model: str, export: str, scores: dict[str, float], baseline: dict[str, float], facts: Any) -> int:
    """Print a row of the table and append it to the file; return 1 if the export loses more accuracy than allowed."""
    worst = min(scores[task] - baseline[task] for task in scores)
    cells = " | ".join(f"{100 * scores[task]:.2f} ({100 * (scores[task] - baseline[task]):+.2f})" for task in METRICS)
    print(f"| {model} | {export} | {cells} | {facts['mb'] if facts else ''} |", flush=True)
    line = {
        "model": model, "export": export, "scores": scores, "lost": {task: baseline[task] - scores[task] for task in scores},
        "facts": facts, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
    }
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return int(worst < -MAX_LOSS)


if __name__ == "__main__":
    sys.exit(main())
