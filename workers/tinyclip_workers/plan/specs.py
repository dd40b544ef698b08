"""Plans of whole specs, or all that is wrong with them; and checks of requests for evaluations."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from tinyclip.artifacts.documents import EvaluationRequest
from tinyclip.schemas import DatasetVersion, FieldError, JobSpec, Plan, PlannedStage
from tinyclip.validation import field_errors

from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.sources import PARENT, check_teacher, of_parent
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.cost import teacher_hours
from tinyclip_workers.plan.data import check_batches, check_training_data
from tinyclip_workers.plan.dataset import check_dataset
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.languages import check_teachers_languages
from tinyclip_workers.plan.objective import check_ensemble, check_objectives
from tinyclip_workers.plan.reinforcement import check_stored
from tinyclip_workers.plan.resources import resolve_device
from tinyclip_workers.plan.shards import shard_urls
from tinyclip_workers.plan.stages import plan_stages, resolve_stage_spec
from tinyclip_workers.plan.tasks import TrainingData, check_tasks
from tinyclip_workers.plan.tuning import check_tuning
from tinyclip_workers.plan.vocabulary import check_vocabularies


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
    parent = _check_parent(spec, diagnostics)
    training, samples, exact = _check_data(spec, dataset, diagnostics)
    check_teachers_languages(spec, dataset.source.languages if dataset is not None else spec.data.train.languages, diagnostics)
    check_batches(spec, samples, exact, diagnostics)
    check_tasks(spec.evaluation.tasks, training, "/evaluation/tasks", diagnostics)
    diagnostics.begin("/objective", None, "reading the files of objectives")
    check_objectives(spec, teachers, diagnostics)
    check_tuning(spec, diagnostics)
    stages: list[PlannedStage] = []
    if (teacher is not None or not teachers) and (parent is not None or spec.inherits_from is None):
        diagnostics.begin("/stages", None, "deriving the students")
        layouts = [source.layout for source in teachers if source is not None]
        inherits = spec.inherits_from_teacher and spec.tokenizer is None
        first = parent or teacher
        keeps = inherits and first is not None and first.tokenizer is not None
        named = None if parent is None else parent.layout
        stages = plan_stages(spec, layouts, samples, device, diagnostics, teachers_tokenizer=keeps, parent=named)
        check_ensemble(spec, teachers, diagnostics)
        check_vocabularies(spec, teachers, stages, diagnostics, parent)
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


def _check_parent(spec: JobSpec, diagnostics: Diagnostics) -> ModelSource | None:
    """Return the model of `inherit_from`; None without one, or if it cannot be used."""
    if spec.inherits_from is None:
        return None
    diagnostics.begin(PARENT, spec.inherits_from, "reading the model to inherit from")
    try:
        return of_parent(spec, check_teacher)
    except TeacherError as error:
        diagnostics.error(error.pointer, error.value, error.message)
        return None


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
