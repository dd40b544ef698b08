"""The planner's process, which the control plane keeps warm: `python -m tinyclip_workers.plan.planner`.

It writes `{"ready": true}`, then answers each line of JSON on stdin with one on stdout: `{"id", "spec", "dataset"}` with
`{"id", "plan"}` or `{"id", "errors"}`, `{"id", "evaluation"}` with `{"id", "errors", "warnings"}`, and `{"id",
"reinforcement"}` with `{"id", "cost"}` or `{"id", "errors"}`. Questions about samples have the answers of `plan.samples`, and
those about items of an index the answers of `plan.items`.
Before an answer, lines `{"id", "doing"}` report its steps. After an internal error, it answers `{"id", "failed": true}`; out of
memory, `{"id", "exhausted": true}`, and exits. All other output is written to stderr.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import IO, Any

from pydantic import ValidationError
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.schemas import DatasetVersion, FieldError, JobSpec, Plan, PlannedStage
from tinyclip.validation import field_errors

from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.sources import check_teacher
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.cost import teacher_hours
from tinyclip_workers.plan.data import check_batches, check_training_data
from tinyclip_workers.plan.dataset import check_dataset
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.items import item_or_problem, item_thumbnail_or_problem
from tinyclip_workers.plan.languages import check_teachers_languages
from tinyclip_workers.plan.objective import check_ensemble, check_objectives
from tinyclip_workers.plan.reinforcement import check_stored, cost_or_errors
from tinyclip_workers.plan.resources import resolve_device
from tinyclip_workers.plan.samples import image_or_problem, samples_or_problem, thumbnail_or_problem
from tinyclip_workers.plan.shards import shard_urls
from tinyclip_workers.plan.stages import plan_stages, resolve_stage_spec
from tinyclip_workers.plan.tasks import TrainingData, check_tasks
from tinyclip_workers.plan.tuning import check_tuning
from tinyclip_workers.plan.vocabulary import check_vocabularies
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
        return plan_or_errors(request["spec"], Diagnostics(on_step=on_step), request.get("dataset"))
    if "reinforcement" in request:
        return cost_or_errors(request["reinforcement"], Diagnostics(on_step=on_step))
    if "samples" in request:
        return samples_or_problem(request["samples"], Diagnostics(on_step=on_step))
    if "thumbnail" in request:
        return thumbnail_or_problem(request["thumbnail"], Diagnostics(on_step=on_step))
    if "item" in request:
        return item_or_problem(request["item"], Diagnostics(on_step=on_step))
    if "item_thumbnail" in request:
        return item_thumbnail_or_problem(request["item_thumbnail"], Diagnostics(on_step=on_step))
    if "image" in request:
        return image_or_problem(request["image"], Diagnostics(on_step=on_step))
    return evaluation_errors(request["evaluation"], Diagnostics(on_step=on_step))


def _report_step(answers: IO[str], id: str, pointer: str, value: Any, what: str) -> None:
    write_answer(answers, {"id": id, "doing": {"pointer": pointer, "value": value, "what": what}})


def plan_or_errors(
    spec: dict[str, Any], diagnostics: Diagnostics | None = None, dataset: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return `{"plan": …}` or `{"errors": […]}` for a spec, and the `DatasetVersion` that it names, as plain data."""
    version = DatasetVersion.model_validate(dataset) if dataset is not None else None
    try:
        parsed = JobSpec.model_validate(spec)
        planned = make_plan(version.resolve(parsed) if version is not None else parsed, diagnostics, version)
    except ValidationError as error:
        planned = field_errors(error.errors(), spec, JobSpec)
    if isinstance(planned, Plan):
        return {"plan": planned.model_dump(mode="json")}
    return {"errors": [error.model_dump(mode="json") for error in planned]}


def make_plan(
    spec: JobSpec, diagnostics: Diagnostics | None = None, dataset: DatasetVersion | None = None
) -> Plan | list[FieldError]:
    """Return the plan of a spec, or all its errors. The spec of a job with a data set must be resolved by its version.

    Reads the teacher's configuration and the header of its weights, and samples of the shards (all samples if they are small);
    trains nothing and downloads no weights. `registry:` teachers must be resolved before.
    Device-hours are estimated from an assumed speed, `cost.SUSTAINED_FLOPS`.
    """
    diagnostics = diagnostics or Diagnostics()
    device = resolve_device(spec, diagnostics)
    teachers = _check_teachers(spec, diagnostics)
    teacher = teachers[0] if teachers else None
    training, samples, exact = _check_data(spec, dataset, diagnostics)
    check_teachers_languages(spec, dataset.source.languages if dataset is not None else spec.data.train.languages, diagnostics)
    check_batches(spec, samples, exact, diagnostics)
    check_tasks(spec.evaluation.tasks, training, "/evaluation/tasks", diagnostics)
    diagnostics.begin("/objective", None, "reading the files of objectives")
    check_objectives(spec, teachers, diagnostics)
    check_tuning(spec, diagnostics)
    stages: list[PlannedStage] = []
    if teacher is not None or not teachers:
        diagnostics.begin("/stages", None, "deriving the students")
        layouts = [source.layout for source in teachers if source is not None]
        inherits = spec.inherits_from_teacher and spec.tokenizer is None
        keeps = inherits and teacher is not None and teacher.tokenizer is not None
        stages = plan_stages(spec, layouts, samples, device, diagnostics, teachers_tokenizer=keeps)
        check_ensemble(spec, teachers, diagnostics)
        check_vocabularies(spec, teachers, stages, diagnostics)
        diagnostics.begin("/data/train/reinforcement", spec.data.train.reinforcement, "comparing the reinforcement")
        check_stored(spec, dataset, teachers, stages, diagnostics)
    if diagnostics.errors:
        return diagnostics.errors
    return Plan(
        spec=_resolve_spec(spec, stages, samples if exact and dataset is None else None),
        teacher=summarize(teacher.layout) if teacher is not None else None,
        teachers=[summarize(source.layout) for source in teachers if source is not None],
        stages=stages,
        steps=sum(stage.steps for stage in stages),
        samples_per_epoch=samples,
        device=device,
        device_hours=sum(stage.device_hours for stage in stages),
        saved_device_hours=_saved_hours(spec, stages, teachers, device),
        warnings=diagnostics.warnings,
    )


def _saved_hours(spec: JobSpec, stages: list[PlannedStage], teachers: list[ModelSource | None], device: str) -> float:
    """Return the device-hours of teachers that a reinforcement saves."""
    if spec.data.train.reinforcement is None:
        return 0.0
    macs = [summarize(source.layout).macs for source in teachers if source is not None]
    return sum(teacher_hours(spec, stage.index, stage.steps, macs, device) for stage in stages)


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


def _check_data(
    spec: JobSpec, dataset: DatasetVersion | None, diagnostics: Diagnostics
) -> tuple[TrainingData, int, bool]:
    """Check the training data. Return it, the pairs in one epoch (0 if it cannot be used), and whether these are exact."""
    train = spec.data.train
    if dataset is not None:
        diagnostics.begin("/data/train/dataset", train.dataset, "looking at the shards of the data set")
        return TrainingData(check_dataset(dataset, diagnostics), train.holdout), dataset.pairs, True
    diagnostics.begin("/data/train/shards", train.shards, "reading the shards")
    samples, exact = check_training_data(spec, diagnostics)
    return TrainingData(shard_urls(train.patterns), train.holdout), samples, exact


def _resolve_spec(spec: JobSpec, planned: list[PlannedStage], samples: int | None) -> JobSpec:
    """Return the spec for the workers. That of a job with a data set names no shards: the workers get its version beside it."""
    train = spec.data.train.model_copy(update={"samples": samples})
    if train.dataset is not None:
        train = train.model_copy(update={"shards": None})
    own = spec.tokenizer is not None
    stages = [resolve_stage_spec(stage, plan, own_tokenizer=own) for stage, plan in zip(spec.stages, planned, strict=True)]
    return spec.model_copy(update={"stages": stages, "data": spec.data.model_copy(update={"train": train})})


if __name__ == "__main__":
    main()
