"""What a spec would do, or everything that is wrong with it: `python -m tinyclip_workers.plan.planner`.

A warm process for the control plane: one JSON line in on stdin, `{"id", "spec"}`, one out on stdout, `{"id", "plan"}` or
`{"id", "errors"}`, after a first `{"ready": true}`. `{"id", "evaluation"}` asks what is wrong with an evaluation instead
(`plan_evaluation.py`). All other output goes to stderr.
"""

import json
import sys
from typing import Any, Literal

import torch
from pydantic import ValidationError
from tinyclip.schemas import FieldError, JobSpec, Plan, PlannedStage
from tinyclip.validation import field_errors

from tinyclip_workers.model.architecture import summarize
from tinyclip_workers.model.folders import ModelSource
from tinyclip_workers.model.sources import TeacherError, check_teacher
from tinyclip_workers.plan.data import Diagnostics, check_batches, check_training_data
from tinyclip_workers.plan.evaluation import evaluation_errors
from tinyclip_workers.plan.objective import check_ensemble, check_objectives
from tinyclip_workers.plan.shards import shard_urls
from tinyclip_workers.plan.stages import plan_stages, resolved_stage
from tinyclip_workers.plan.tasks import Training, check_tasks
from tinyclip_workers.runtime.json_lines import take_stdout, write_answer


def main() -> None:
    """Answer questions until stdin ends. A fault of ours ends the process with its traceback; the control plane sees that."""
    answers = take_stdout()
    write_answer(answers, {"ready": True})
    for line in sys.stdin:
        if line.strip():
            question = json.loads(line)
            found = answer(question["spec"]) if "spec" in question else evaluation_errors(question["evaluation"])
            write_answer(answers, {"id": question["id"], **found})


def answer(spec: dict[str, Any]) -> dict[str, Any]:
    """`{"plan": …}` or `{"errors": […]}` for a spec as plain data."""
    try:
        planned = make_plan(JobSpec.model_validate(spec))
    except ValidationError as error:
        planned = field_errors(error.errors(), spec, JobSpec)
    if isinstance(planned, Plan):
        return {"plan": planned.model_dump(mode="json")}
    return {"errors": [error.model_dump(mode="json") for error in planned]}


def make_plan(spec: JobSpec) -> Plan | list[FieldError]:
    """The plan of a spec, or all that is wrong with it.

    Looks at the teacher's configuration and the header of its weights, and at samples of the shards (all of them where
    they are small); trains nothing and downloads no weights. `registry:` teachers must be resolved before.
    Device-hours rest on `plan_stages.SUSTAINED_FLOPS`, an assumed speed.
    """
    diagnostics = Diagnostics()
    device = _device(spec, diagnostics)
    teachers = _teachers(spec, diagnostics)
    teacher = teachers[0] if teachers else None
    samples, exact = check_training_data(spec, diagnostics)
    check_batches(spec, samples, exact, diagnostics)
    training = Training(shard_urls(spec.data.train.shards), spec.data.train.holdout)
    check_tasks(spec.evaluation.tasks, training, "/evaluation/tasks", diagnostics)
    check_objectives(spec, teacher, diagnostics)
    stages: list[PlannedStage] = []
    if teacher is not None or not teachers:
        layouts = [source.layout for source in teachers if source is not None]
        stages = plan_stages(spec, layouts, samples, device, diagnostics)
        check_ensemble(spec, teachers, stages, diagnostics)
    if diagnostics.errors:
        return diagnostics.errors
    return Plan(
        spec=_resolved(spec, stages, samples if exact else None),
        teacher=summarize(teacher.layout) if teacher is not None else None,
        teachers=[summarize(source.layout) for source in teachers if source is not None],
        stages=stages,
        steps=sum(stage.steps for stage in stages),
        samples_per_epoch=samples,
        device=device,
        device_hours=sum(stage.device_hours for stage in stages),
        warnings=diagnostics.warnings,
    )


def _teachers(spec: JobSpec, diagnostics: Diagnostics) -> list[ModelSource | None]:
    """All of the spec's; None for one that cannot be used."""
    found: list[ModelSource | None] = []
    for at in spec.every_teacher():
        try:
            found.append(check_teacher(at.spec, at.pointer))
        except TeacherError as error:
            diagnostics.error(error.pointer, error.value, error.message)
            found.append(None)
    return found


def _device(spec: JobSpec, diagnostics: Diagnostics) -> Literal["cpu", "cuda"]:
    """`auto` is what this machine has; whether a cluster elsewhere has it is the scheduler's to know."""
    here: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    device = here if spec.resources.device == "auto" else spec.resources.device
    if device == "cuda" and here == "cpu":
        diagnostics.warn("resources.device is cuda, which this machine does not have: the job waits for a node with a GPU")
    if device == "cpu" and spec.precision == "fp16":
        diagnostics.error("/precision", "fp16", "does not train on CPUs; use fp32 or bf16, or resources.device: cuda")
    return device


def _resolved(spec: JobSpec, planned: list[PlannedStage], samples: int | None) -> JobSpec:
    train = spec.data.train.model_copy(update={"samples": samples})
    stages = [resolved_stage(stage, plan) for stage, plan in zip(spec.stages, planned, strict=True)]
    return spec.model_copy(update={"stages": stages, "data": spec.data.model_copy(update={"train": train})})


if __name__ == "__main__":
    main()
