"""Compare the demo's student with its exports of a reduced vocabulary and of rounded token embeddings.

    python bench/vocabulary.py [--student FOLDER] [--out bench/results/vocabulary.json]

Trains `examples/emoji/half.yaml`, unless a folder of its student is given, exports it to our own format, and sends each export
every query of the evaluation tasks: the label of each image, the nearest images of each caption, the nearest captions of each
image. An answer is identical if the label, or the ten nearest in their order, are those of the student itself.

Shapes: N images, M texts, C classes, Q queries, K answers of a query.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hardware import cpu
from safetensors.torch import save
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import EmbeddingType, ExportFormat, ExportOptions, JobSpec, VocabularyChoice
from tinyclip.schemas.exports import export_name
from tinyclip.schemas.spec import EvaluationTask, RetrievalTask, ZeroShotTask
from tinyclip.specfile import load_spec
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.samples import Sample
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.evaluation.embedding import embed_images, embed_texts, evaluation_mode
from tinyclip_workers.evaluation.labels import ValueReader, fill_template, task_lines
from tinyclip_workers.evaluation.metrics import class_embeddings
from tinyclip_workers.exporting.exporter import create_export
from tinyclip_workers.exporting.samples import gather_samples
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.vocabularies.vocabulary import reduced_model, reducible_layout
from tinyclip_workers.versions.reduction import reduced_vocabulary
from tinyclip_workers.versions.writer import model_files
from torch import Tensor
from training import run_stages, teacher_of

HERE = Path(__file__).parent
SPEC = HERE.parent / "examples" / "emoji" / "half.yaml"
WHOLE, REDUCED = VocabularyChoice.WHOLE, VocabularyChoice.REDUCED
EXPORTS = [(WHOLE, EmbeddingType.FP32), *((vocabulary, each) for vocabulary in (REDUCED, WHOLE) for each in EmbeddingType)]
NEAREST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="the folder of the spec's student, to be written if there is none")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "vocabulary.json")
    arguments = parser.parse_args()
    spec = JobSpec.model_validate(load_spec(SPEC, []))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.student or Path(temporary) / "student"
        if not folder.exists():
            train(spec, folder)
        student = load_folder(str(folder))
        result = measure(spec, student, Path(temporary))
    arguments.out.write_text(json.dumps({"machine": cpu(), "torch": torch.__version__, **result}, indent=1) + "\n")
    for line in result["exports"]:
        print(line)


def train(spec: JobSpec, folder: Path) -> None:
    """Train the spec's only stage and write its student."""
    teacher = teacher_of(spec)
    assert teacher is not None
    [trained] = run_stages(spec, teacher, "half", observe=lambda _: None)
    student = trained.student
    weights = save({name: tensor.contiguous() for name, tensor in student.model.state_dict().items()})
    folder.mkdir(parents=True)
    for name, content in model_files(student.layout, weights, student.image_mean, student.image_std, teacher.layout).items():
        (folder / name).write_bytes(content)


def measure(spec: JobSpec, student: LoadedModel, temporary: Path) -> dict[str, Any]:
    """Return the report on the vocabulary, and for each export its bytes and its answers."""
    layout = reducible_layout(student.layout, student.tokenizer_source)
    vocabulary, report = reduced_vocabulary(ArtifactsStore(str(temporary)), spec, None, layout)
    reduced = reduced_model(student, vocabulary)
    samples = gather_samples(spec.evaluation.tasks, spec.data.train)
    exports, sizes = {}, {}
    for choice, embedding in dict.fromkeys(EXPORTS):
        options = ExportOptions(False, choice, embedding)
        folder = temporary / export_name(ExportFormat.TINYCLIP, options)
        folder.mkdir()
        document = create_export(reduced if choice is REDUCED else student, ExportFormat.TINYCLIP, folder, samples, options)
        sizes[folder.name] = {
            "weights": max(file.bytes for file in document.files), "all_files": sum(file.bytes for file in document.files),
            "mean_cosine_of_texts": document.check.text.mean_cosine,
        }  # fmt: skip
        exports[folder.name] = load_folder(str(folder))
    found = answers(spec, {"student": student, **exports})
    lines = []
    for name in exports:
        same = {kind: compared(found["student"][kind], found[name][kind]) for kind in found["student"]}
        lines.append({"export": name, **sizes[name], "identical": all(a == b for a, b in same.values()), "answers": same})
    return {"reduction": report.model_dump(mode="json"), "layout": layout.model_dump(mode="json"), "exports": lines}


def compared(expected_QK: Tensor, found_QK: Tensor) -> tuple[int, int]:
    """Return how many queries have the same answers, and how many there are."""
    return int((expected_QK == found_QK).all(dim=1).sum()), len(expected_QK)


def answers(spec: JobSpec, models: dict[str, LoadedModel]) -> dict[str, dict[str, Tensor]]:
    """Return the answers of every model to all queries, by task and kind of query. Images are encoded once, by the student."""
    student = models["student"]
    for model in models.values():
        expect_same_images(student, model)
    found: dict[str, dict[str, Tensor]] = {name: {} for name in models}
    with evaluation_mode(models.values(), torch.device("cpu")):
        for task in spec.evaluation.tasks:
            samples = selected(task, spec.data.train.holdout)
            data = embed_images({"student": student}, samples, task.image_key, lambda *_: None)
            images_NE = data.images_NE["student"]
            texts = list(dict.fromkeys(caption for captions in data.values for caption in captions)) if is_retrieval(task) else []
            for name, model in models.items():
                if isinstance(task, ZeroShotTask):
                    found[name][f"{task.name}: labels"] = nearest(images_NE, classifier(task, model), 1)
                    continue
                texts_ME = embed_texts(model, texts)
                found[name][f"{task.name}: images of a caption"] = nearest(texts_ME, images_NE, NEAREST)
                found[name][f"{task.name}: captions of an image"] = nearest(images_NE, texts_ME, NEAREST)
    return found


def expect_same_images(student: LoadedModel, model: LoadedModel) -> None:
    """Check that two image towers have the same weights, bit for bit, and so the same embeddings."""
    ours, theirs = student.model.state_dict(), model.model.state_dict()
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items() if name.startswith("visual."))
    assert (student.image_mean, student.image_std) == (model.image_mean, model.image_std)


def is_retrieval(task: EvaluationTask) -> bool:
    return isinstance(task, RetrievalTask)


def selected(task: EvaluationTask, holdout: float) -> Iterator[tuple[Sample, Any]]:
    reader = ValueReader(task, holdout)
    for sample in read_shards(expand_shards(task.shards), Skipped()):
        if reader.selects(sample):
            yield sample, reader.read(sample)


def classifier(task: ZeroShotTask, model: LoadedModel) -> Tensor:
    """Return the embeddings of a task's classes (C, E)."""
    classes, templates = task_lines(task.classes or []), task_lines(task.templates or [])
    prompts = [fill_template(template, name) for template in templates for name in classes]
    return class_embeddings(embed_texts(model, prompts).view(len(templates), len(classes), -1))


def nearest(queries_QE: Tensor, items_ME: Tensor, count: int) -> Tensor:
    """Return the rows of the items most similar to each query, the most similar first (Q, K)."""
    return (queries_QE @ items_ME.T).sort(dim=1, descending=True, stable=True).indices[:, :count]


if __name__ == "__main__":
    main()
