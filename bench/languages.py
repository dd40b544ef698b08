"""Train the emoji student of six languages over seeds: `python bench/languages.py [--seeds 0 1 2] [--threads 2]`.

Trains `examples/emoji/languages.yaml` in this process, with the parts of a job's workers but without Ray, and evaluates student
and teacher in each language: R@10 from text to image on the style that training never sees, and its ratio to that of English.
The monolingual students are those of `half.yaml` in `bench/results/seeds.jsonl` (`seeds.py`), which see as many pairs. A result
is one JSON line in `bench/results/languages.jsonl`; what is recorded is not trained again. `--set` tries other settings, which
are judged by `picture-retrieval` (held-out pictures of the training styles) and not recorded.
"""

import argparse
import tempfile
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from recorded import Recorded
from rich.console import Console
from rich.table import Table
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.paths import job_spec
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.files.sources import find_teacher
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.control import Command
from tinyclip_workers.training.dataset import open_index_of, prepare_index
from tinyclip_workers.training.pieces import load_pieces
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.training.trainer import Hooks, StageTrainer
from tinyclip_workers.training.vocabulary import prepare_tokenizer
from tinyclip_workers.training.worker import current_student

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "languages.jsonl", "seed")
MONOLINGUAL = Recorded(HERE / "results" / "seeds.jsonl", "spec", "seed")
SPEC = HERE.parent / "examples" / "emoji" / "languages.yaml"
CPU = torch.device("cpu")
R10 = "text_to_image_r10"
JUDGED, TUNED = "style-retrieval", "picture-retrieval"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--set", nargs="+", default=[], help="other settings, as optimizer.lr=1e-3; the result is not recorded")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        if arguments.set:
            show([run(seed, arguments.set)], TUNED)
            continue
        with RESULTS.missing(seed) as missing:
            if missing:
                RESULTS.keep(run(seed))
    if not arguments.set:
        show(RESULTS.lines(), JUDGED)


def run(seed: int, changes: list[str] | None = None) -> dict[str, Any]:
    """Train and evaluate the student of a seed, and its start; return the scores in percent by task and model."""
    spec = JobSpec.model_validate(load_spec(SPEC, [*(changes or []), f"seed={seed}"]))
    with tempfile.TemporaryDirectory(prefix="languages-") as folder:
        start, student, teacher, seconds = train(attempt_in(folder, spec))
        compared = {"start": start, "student": student, "teacher": teacher}
        found = evaluate_tasks(compared, spec.evaluation.tasks, holdout=spec.data.train.holdout)
    scores = {
        task: {model: round(100 * scores.get(R10, scores.get("top1", 0)), 2) for model, scores in models.items()}
        for task, models in found.items()
    }
    steps, tokens = spec.stages[0].train.steps, student.layout.vocab_size
    settings = {"steps": steps, "batch_size": spec.batch_size, "tokens": tokens, "seconds": round(seconds)}
    return {"seed": seed, **settings, "scores": scores}


def attempt_in(folder: str, spec: JobSpec) -> JobAttempt:
    document = JobDocument(job="job_1", name=spec.name, spec=spec, model_name=spec.name, model_version=1)
    ArtifactsStore(folder).write_bytes(job_spec("job_1"), document.model_dump_json().encode())
    return JobAttempt.open(folder, "job_1", 1)


def train(attempt: JobAttempt) -> tuple[LoadedModel, LoadedModel, LoadedModel, float]:
    """Train the stage. Return the student before and after it, the teacher, and CPU seconds."""
    began, spec = time.process_time(), attempt.spec
    assert spec.teacher is not None
    source = find_teacher(spec.teacher)
    samples, tokenizer = prepare_index(attempt), prepare_tokenizer(attempt, source)
    stage = resolve_stage(spec, 0, source.layout, None, samples, None if tokenizer is None else tokenizer.vocab_size)
    index = open_index_of(attempt)
    pieces = load_pieces(attempt, stage, index, CPU, fresh=True)
    assert pieces.original is not None
    student = pieces.student
    trainer = StageTrainer(
        spec, stage, student.model, pieces.teachers, CPU, mean=student.image_mean, std=student.image_std,
        calibration=pieces.calibration,
    )  # fmt: skip
    trainer.learner.prune_if_due(0)
    start = load_copy(current_student(student, trainer))
    stream = PairStream(
        spec.data, index, batch_size=stage.batch_size, image_size=stage.layout.image_size, seed=spec.seed,
        tokenize=SingleTextTokenizer(student.tokenizer), teacher_inputs=trainer.prepare.teacher_inputs,
    )  # fmt: skip
    trainer.run(iter(BatchLoader(stream, 0)), Hooks(lambda: Command.RUN, _print_progress, lambda _: None, lambda _: None))
    return start, current_student(student, trainer), pieces.original, time.process_time() - began


def load_copy(student: LoadedModel) -> LoadedModel:
    """Return a copy, which further training does not change."""
    return replace(student, model=deepcopy(student.model))


def _print_progress(result: Any) -> None:
    if result.step % 50 == 0:
        print(f"step {result.step}: loss {result.loss:.3f}", flush=True)


def show(results: list[dict[str, Any]], task: str) -> None:
    """Print R@10 of each language with its ratio to that of English, the mean over the seeds."""
    if not results:
        return
    languages = [name.removeprefix(f"{task}.") for name in results[0]["scores"] if name.startswith(f"{task}.")]
    table = Table(title=f"{task}: R@10 from text to image, {len(results)} seeds; percent")
    for column in ("model", *languages, "least / English"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for model in ("teacher", "start", "student"):
        means = [_mean([line["scores"][f"{task}.{language}"][model] for line in results]) for language in languages]
        table.add_row(model, *(f"{mean:.1f}" for mean in means), f"{min(means) / means[0]:.1%}")
    if task == JUDGED:
        lines = [line for line in MONOLINGUAL.lines() if (line["spec"], line["stage"]) == ("half", "half")]
        alone = [100 * line["scores"][task][R10] for line in lines]
        table.add_row("monolingual", f"{_mean(alone):.1f}")
    Console(width=140).print(table)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
