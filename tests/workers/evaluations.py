"""Scores of a single evaluation task."""

from collections.abc import Mapping

from tinyclip.schemas.spec import EvaluationTask
from tinyclip_workers.evaluation.tasks import ModelScores, evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel


def evaluate(models: Mapping[str, LoadedModel], task: EvaluationTask, *, holdout: float = 0.0) -> ModelScores:
    return evaluate_tasks(models, [task], holdout=holdout)[task.name]
