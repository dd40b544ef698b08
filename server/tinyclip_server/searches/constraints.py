"""Contradictions in what a search is asked for, each at its field."""

from collections.abc import Iterator, Mapping

from tinyclip.schemas import Constraint, FieldError, SearchPost

OF_CLASSES = ("top1", "top5", "mean_per_class")
METRICS: Mapping[str, tuple[str, ...]] = {
    "zero_shot": OF_CLASSES,
    "linear_probe": OF_CLASSES,
    "retrieval": tuple(f"{direction}_r{k}" for direction in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
}
"""By the kind of a task."""


def constraint_errors(body: SearchPost) -> Iterator[FieldError]:
    """Return what is wrong with the constraints, before the spec is planned."""
    if not body.spec.evaluation.tasks:
        message = "has no task, and students are compared by their qualities; give at least one"
        yield FieldError(pointer="/spec/evaluation/tasks", value=None, message=message)
    for index, constraint in enumerate(body.constraints):
        yield from _quality_errors(body, constraint, f"/constraints/{index}")
    yield from _latency_errors(body)


def _quality_errors(body: SearchPost, constraint: Constraint, pointer: str) -> Iterator[FieldError]:
    if constraint.task is None:
        return
    kinds = {name: task.kind for task in body.spec.evaluation.tasks for name in (task.name, *task.result_names())}
    if constraint.task not in kinds:
        message = f"is none of the spec's evaluation tasks, which are {', '.join(list(kinds)[:20]) or 'none'}"
        yield FieldError(pointer=f"{pointer}/task", value=constraint.task, message=message)
        return
    known = METRICS[kinds[constraint.task]]
    if constraint.metric is not None and constraint.metric not in known:
        message = f"is no metric of {constraint.task}; use one of {', '.join(known)}"
        yield FieldError(pointer=f"{pointer}/metric", value=constraint.metric, message=message)
    if constraint.keep is not None and not body.spec.every_teacher():
        message = "is a share of the teacher's value, and the spec has no teacher; give min"
        yield FieldError(pointer=f"{pointer}/keep", value=constraint.keep, message=message)


def _latency_errors(body: SearchPost) -> Iterator[FieldError]:
    found = {index: each for index, each in enumerate(body.constraints) if each.latency_ms is not None}
    if body.minimize == "latency_ms" and not found:
        message = "needs a constraint of latency_ms, which names the engine and the hardware"
        yield FieldError(pointer="/minimize", value=body.minimize, message=message)
    first = next(iter(found), 0)
    for index, each in found.items():
        pointer = f"/constraints/{index}"
        if not body.spec.every_teacher():
            message = "is predicted for layouts of the teacher's family, and the spec has no teacher; give bytes, params or macs"
            yield FieldError(pointer=f"{pointer}/latency_ms", value=None, message=message)
        if each.device != found[first].device:
            message = f"is not {found[first].device}, as of constraint {first}: a search measures latencies on one device"
            yield FieldError(pointer=f"{pointer}/device", value=each.device, message=message)
        if each.device == "cuda" and each.engine.startswith("openvino"):
            yield FieldError(pointer=f"{pointer}/engine", value=each.engine, message="runs on CPUs only; use torch or torch-bf16")
