"""The paper's claims at the size of the emoji drawings: `python bench/claims.py [--seeds 0 1 2] [--only NAME …]`.

Trains the students of `claims_runs.py`, of the example's two teachers, and evaluates each before its first step, six times on the
way and at the end: on the style that training never sees, its unseen concepts, held-out pictures and their agreement with the
teacher, and styles far from those of training. A result is one JSON line in `bench/results/claims.jsonl`; recorded runs are not
repeated, so it may be stopped at any time, and several processes may run side by side. `bench/claims_report.py` makes the tables
and the curves.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import torch
from claims_runs import CLUSTER_FILE, MASK_LR, TEACHERS, TOWERS, Run, base_of, runs
from distant_styles import distant_tasks
from hardware import cpu
from random_units import in_random_order
from recorded import Recorded
from tinyclip.schemas import JobSpec
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer, TeacherInputs, TextInput
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.masked import removed_share
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.training.clusters import make_clusters
from tinyclip_workers.training.observation.agreement import TeacherAgreement, read_pairs
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.teachers.inputs import AS_STUDENT, InputPreparation
from training import Scores, Snapshot, run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "claims.jsonl", "run", "steps", "seed")
DISTANT = HERE / "results" / "distant"
BATCH, EVALUATIONS, CLUSTERS = 64, 6, 128
CURVE_TASKS = ("style-subgroup", "style-retrieval", "picture-subgroup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of runs (default: all)")
    parser.add_argument("--steps", type=int, nargs="+", help="budgets (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="bf16", help="as a spec's; auto measures bf16 and fp32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in TEACHERS:
        with RESULTS.missing(f"teacher-{name}", 0, 0) as missing:
            if missing:
                RESULTS.keep(teacher_line(name))
    for seed in arguments.seeds:
        for run in runs():
            if run.name in (arguments.only or [run.name]) and run.steps in (arguments.steps or [run.steps]):
                with RESULTS.missing(run.name, run.steps, seed) as missing:
                    if missing:
                        RESULTS.keep(train(run, seed, arguments.precision))


def train(run: Run, seed: int, precision: str) -> dict[str, Any]:
    """Train a run and return its result line."""
    spec = spec_of(run, seed, precision)
    original, curve = teacher_of(spec), []
    assert original is not None
    if run.random_units:
        original = in_random_order(original, seed)
    if spec.objective.clusters and not CLUSTER_FILE.exists():
        make_clusters(spec, str(CLUSTER_FILE), CLUSTERS)

    def observe(snapshot: Snapshot) -> None:
        scores = _curve_scores(snapshot.student, spec, run.teacher)
        curve.append({"step": snapshot.step, "seconds": round(snapshot.seconds, 2), **scores})

    trained = list(run_stages(spec, original, f"{run.name} {run.steps} seed {seed}", observe))
    student = trained[-1].student
    curve.append(
        {
            "step": sum(stage.stage.steps for stage in trained),
            "seconds": round(sum(stage.seconds for stage in trained), 2),
            **_curve_scores(student, spec, run.teacher),
        }
    )
    return {
        "run": run.name,
        "teacher": run.teacher,
        "steps": run.steps,
        "seed": seed,
        "precision": precision,
        "cpu": cpu(),
        "kept_of_blocks": round(kept_share(original.layout, student.layout), 4),
        **summarize(student.layout).model_dump(mode="json"),
        "scores": scores_of(student, spec),
        "curve": curve,
    }


def kept_share(teacher: Layout, student: Layout) -> float:
    """Return the share of the teacher's weights in attention and MLPs; of a ResNet's, of all weights but the word embedding."""
    if teacher.image.kind == "resnet":
        sizes = [summarize(layout) for layout in (student, teacher)]
        own, whole = (size.image_params + size.text_params_without_embedding for size in sizes)
        return own / whole
    return 1 - removed_share(teacher, student, TOWERS)


def spec_of(run: Run, seed: int, precision: str) -> JobSpec:
    """Return the spec of a run: the example of its teacher with other stages and settings."""
    base = base_of(run.teacher)
    tasks = [*base["evaluation"]["tasks"], *distant_tasks(base, DISTANT)]
    changes = {
        "name": run.name,
        "stages": run.stages,
        "objective": run.objective,
        "optimizer": {"lr": run.lr, "warmup_steps": 20, "mask_lr": MASK_LR},
        "batch_size": BATCH,
        "precision": precision,
        "seed": seed,
        "evaluation": {"tasks": tasks, "every_steps": run.steps // EVALUATIONS},
    }
    return JobSpec.model_validate({**base, **changes, **run.changes})


def teacher_line(name: str) -> dict[str, Any]:
    """Return the result line of a teacher."""
    spec, teacher = _spec_and_teacher(name)
    summary = summarize(teacher.layout).model_dump(mode="json")
    return {"run": f"teacher-{name}", "teacher": name, "steps": 0, "seed": 0, **summary, "scores": scores_of(teacher, spec)}


def _curve_scores(model: LoadedModel, spec: JobSpec, teacher: str) -> dict[str, float]:
    scores = scores_of(model, spec, [task for task in spec.evaluation.tasks if task.name in CURVE_TASKS])
    return {**_shown(scores), "kl": round(_agreement_with(teacher).kl(model.model), 5)}


def _shown(scores: Scores) -> dict[str, float]:
    return {
        "top1": scores["style-subgroup"]["top1"],
        "r10": scores["style-retrieval"]["text_to_image_r10"],
        "picture_top1": scores["picture-subgroup"]["top1"],
    }


@cache
def _agreement_with(name: str) -> TeacherAgreement:
    """Return the agreement with a teacher on held-out pairs: at its own temperature, whatever a run uses."""
    spec, teacher = _spec_and_teacher(name)
    text = TextInput(SingleTextTokenizer(teacher.tokenizer))
    pairs = read_pairs(spec.data, teacher.layout.image_size, text, TeacherInputs())
    assert pairs is not None
    colors, augmentation = (teacher.image_mean, teacher.image_std), spec.data.train.augment
    prepare = InputPreparation(colors, [AS_STUDENT], augmentation, torch.device("cpu"))
    return TeacherAgreement(pairs, [FrozenTeacher(teacher.model, None)], prepare, trims=text.trims)


def _spec_and_teacher(name: str) -> tuple[JobSpec, LoadedModel]:
    spec = spec_of(next(run for run in runs() if run.teacher == name), 0, "fp32")
    teacher = teacher_of(spec)
    assert teacher is not None
    return spec, teacher


if __name__ == "__main__":
    main()
