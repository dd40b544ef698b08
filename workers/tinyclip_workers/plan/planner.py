"""The planner's process, which the control plane keeps warm: `python -m tinyclip_workers.plan.planner`.

It writes `{"ready": true}`, then answers each line of JSON on stdin with one on stdout: `{"id", "spec"}` with `{"id", "plan"}` or
`{"id", "errors"}`, and `{"id", "evaluation"}` with `{"id", "errors", "warnings"}`. Before an answer, lines `{"id", "doing"}`
report its steps. After an internal error, it answers `{"id", "failed": true}`; out of memory, `{"id", "exhausted": true}`, and
exits. All other output is written to stderr.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, Any

from pydantic import ValidationError
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.schemas import FieldError, JobSpec, Plan, PlannedStage
from tinyclip.validation import field_errors

from tinyclip_workers.model.architecture import summarize
from tinyclip_workers.model.folders import ModelSource
from tinyclip_workers.model.sources import TeacherError, check_teacher
from tinyclip_workers.plan.data import check_batches, check_training_data
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.objective import check_ensemble, check_objectives
from tinyclip_workers.plan.resources import resolve_device
from tinyclip_workers.plan.shards import shard_urls
from tinyclip_workers.plan.stages import plan_stages, resolve_stage_spec
from tinyclip_workers.plan.tasks import TrainingData, check_tasks
from tinyclip_workers.plan.tuning import check_tuning
from tinyclip_workers.runtime.json_lines import take_stdout, write_answer
from tinyclip_workers.runtime.memory import is_out_of_memory

OnStep = Callable[[str, Any, str], None]


def main() -> None:
    """Answer until stdin ends. An internal error costs its question only; its traceback is written to stderr."""
    answers = take_stdout()
    write_answer(answers, {"ready": True})
    for line in sys.stdin:
        if not line.strip():
            continue
        request = json.loads(line)
        try:
            found = _answer(request, partial(_report_step, answers, request["id"]))
        except Exception as error:
            if is_out_of_memory(error):
                write_answer(answers, {"id": request["id"], "exhausted": True})
                return  # memory may be fragmented: the next question is for a new process
            traceback.print_exc()
            found = {"failed": True}
        write_answer(answers, {"id": request["id"], **found})


def _answer(request: Mapping[str, Any], on_step: OnStep) -> dict[str, Any]:
    if "spec" in request:
        return plan_or_errors(request["spec"], Diagnostics(on_step=on_step))
    return evaluation_errors(request["evaluation"], Diagnostics(on_step=on_step))


def _report_step(answers: IO[str], id: str, pointer: str, value: Any, what: str) -> None:
    write_answer(answers, {"id": id, "doing": {"pointer": pointer, "value": value, "what": what}})


def plan_or_errors(spec: dict[str, Any], diagnostics: Diagnostics | None = None) -> dict[str, Any]:
    """Return `{"plan": …}` or `{"errors": […]}` for a spec as plain data."""
    try:
        planned = make_plan(JobSpec.model_validate(spec), diagnostics)
    except ValidationError as error:
        planned = field_errors(error.errors(), spec, JobSpec)
    if isinstance(planned, Plan):
        return {"plan": planned.model_dump(mode="json")}
    return {"errors": [error.model_dump(mode="json") for error in planned]}


def make_plan(spec: JobSpec, diagnostics: Diagnostics | None = None) -> Plan | list[FieldError]:
    """Return the plan of a spec, or all its errors.

    Reads the teacher's configuration and the header of its weights, and samples of the shards (all samples if they are small);
    trains nothing and downloads no weights. `registry:` teachers must be resolved before.
    Device-hours are estimated from an assumed speed, `cost.SUSTAINED_FLOPS`.
    """
    diagnostics = diagnostics or Diagnostics()
    device = resolve_device(spec, diagnostics)
    teachers = _check_teachers(spec, diagnostics)
    teacher = teachers[0] if teachers else None
    diagnostics.begin("/data/train/shards", spec.data.train.shards, "reading the shards")
    samples, exact = check_training_data(spec, diagnostics)
    check_batches(spec, samples, exact, diagnostics)
    training = TrainingData(shard_urls(spec.data.train.patterns), spec.data.train.holdout)
    check_tasks(spec.evaluation.tasks, training, "/evaluation/tasks", diagnostics)
    diagnostics.begin("/objective", None, "reading the files of objectives")
    check_objectives(spec, teacher, diagnostics)
    check_tuning(spec, diagnostics)
    stages: list[PlannedStage] = []
    if teacher is not None or not teachers:
        diagnostics.begin("/stages", None, "deriving the students")
        layouts = [source.layout for source in teachers if source is not None]
        stages = plan_stages(spec, layouts, samples, device, diagnostics)
        check_ensemble(spec, teachers, stages, diagnostics)
    if diagnostics.errors:
        return diagnostics.errors
    return Plan(
        spec=_resolve_spec(spec, stages, samples if exact else None),
        teacher=summarize(teacher.layout) if teacher is not None else None,
        teachers=[summarize(source.layout) for source in teachers if source is not None],
        stages=stages,
        steps=sum(stage.steps for stage in stages),
        samples_per_epoch=samples,
        device=device,
        device_hours=sum(stage.device_hours for stage in stages),
        warnings=diagnostics.warnings,
    )


def evaluation_errors(document: Mapping[str, Any], diagnostics: Diagnostics | None = None) -> dict[str, Any]:
    """Return `{"errors": […], "warnings": […]}` of an `EvaluationRequest` as plain data; pointers are those of the user.

    Reads configurations and headers of weights and samples of the shards; loads and downloads no weights.
    """
    evaluation, diagnostics = EvaluationRequest.model_validate(document), diagnostics or Diagnostics()
    for pointer, model in (("/model", evaluation.model), ("/against", evaluation.against)):
        if model is None:
            continue
        diagnostics.begin(pointer, model.name, "reading the model")
        try:
            check_teacher(model.source)
        except TeacherError as error:
            diagnostics.error(pointer, model.name, error.message)
    training = TrainingData(set(), evaluation.holdout, holdout_field="holdout")
    check_tasks(evaluation.tasks, training, "/tasks", diagnostics)
    return {"errors": [error.model_dump(mode="json") for error in diagnostics.errors], "warnings": diagnostics.warnings}


def _check_teachers(spec: JobSpec, diagnostics: Diagnostics) -> list[ModelSource | None]:
    """Return all teachers of the spec; None for one that cannot be used."""
    found: list[ModelSource | None] = []
    for at in spec.every_teacher():
        diagnostics.begin(f"{at.pointer}/model", at.spec.model, "reading the teacher")
        try:
            found.append(check_teacher(at.spec, at.pointer))
        except TeacherError as error:
            diagnostics.error(error.pointer, error.value, error.message)
            found.append(None)
    return found


def _resolve_spec(spec: JobSpec, planned: list[PlannedStage], samples: int | None) -> JobSpec:
    train = spec.data.train.model_copy(update={"samples": samples})
    stages = [resolve_stage_spec(stage, plan) for stage, plan in zip(spec.stages, planned, strict=True)]
    return spec.model_copy(update={"stages": stages, "data": spec.data.model_copy(update={"train": train})})


if __name__ == "__main__":
    main()
