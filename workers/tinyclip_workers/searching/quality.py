"""Qualities of students: those that must be kept, and what short trainings let expect of long ones."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinyclip.artifacts.searches import Quality, SearchRecord, TrialRecord
from tinyclip.schemas.spec import EvaluationTask

PRIOR_GAIN = 0.3
"""The share of the distance to the teacher that the next rung makes good, before any pair of rungs has finished."""


@dataclass(frozen=True)
class Goal:
    """A quality that counts: one metric of one task, and the value that a student must reach, if any."""

    task: str
    metric: str
    keep: float | None = None
    min: float | None = None

    def needed(self, teacher: float | None) -> float | None:
        """Return the least value, or None if there is none or the teacher's is unknown."""
        if self.keep is not None:
            return self.keep * teacher if teacher is not None else None
        return self.min

    def __str__(self) -> str:
        return f"{self.metric} of {self.task}"


@dataclass(frozen=True)
class Qualities:
    """The goals of a search: those of its constraints, or else every task of the spec."""

    goals: tuple[Goal, ...]
    teacher: Quality
    is_constrained: bool

    @classmethod
    def of(cls, record: SearchRecord) -> "Qualities":
        tasks = {task.name: _headline(task) for task in record.post.spec.evaluation.tasks}
        named = {name: _headline(task) for task in record.post.spec.evaluation.tasks for name in task.result_names()} | tasks
        needed = [constraint for constraint in record.post.constraints if constraint.task is not None]
        goals = [
            Goal(c.task, c.metric or named.get(c.task, "top1"), c.keep, c.min) for c in needed if c.task is not None
        ] or [Goal(task, metric) for task, metric in tasks.items()]
        return cls(tuple(goals), record.teacher_quality, bool(needed))

    def of_teacher(self, trial: TrialRecord, goal: Goal) -> float | None:
        return value_of(trial.teacher, goal) or value_of(self.teacher, goal)

    def margin(self, trial: TrialRecord, gain: float = 0.0, quality: Quality | None = None) -> float | None:
        """Return the smallest ratio of a value to what is needed, or the mean share of the teacher's if nothing is needed.

        `gain`: the share of the distance to the teacher that further training is expected to make good.
        `quality`: in place of the trial's own. None: a value is missing.
        """
        ratios = []
        for goal in self.goals:
            value, teacher = value_of(quality or trial.quality, goal), self.of_teacher(trial, goal)
            if value is None:
                return None
            needed = goal.needed(teacher) if self.is_constrained else teacher
            reference = max(teacher or 0.0, needed or 0.0)
            expected = value + gain * max(0.0, reference - value)
            ratios.append(expected / needed if needed else expected)
        if not ratios:
            return None
        return min(ratios) if self.is_constrained else statistics.fmean(ratios)

    def gains(self, trials: Sequence[TrialRecord], rungs: int) -> list[float]:
        """Return the gain that is expected of each rung up to the last one, learned from trials that continue another."""
        numbered = {trial.number: trial for trial in trials}
        steps = [self._gain_of_step(rung, trials, numbered) for rung in range(1, rungs)]
        remaining, gains = 1.0, [0.0]
        for step in reversed(steps):
            remaining *= 1 - step
            gains.append(1 - remaining)
        return gains[::-1]

    def _gain_of_step(self, rung: int, trials: Sequence[TrialRecord], numbered: Mapping[int, TrialRecord]) -> float:
        observed = [PRIOR_GAIN]
        for trial in trials:
            before = numbered.get(trial.settings.get("continues", -1))
            if before is None or trial.rung != rung:
                continue
            for goal in self.goals:
                old, new, teacher = value_of(before.quality, goal), value_of(trial.quality, goal), self.of_teacher(trial, goal)
                if old is None or new is None or teacher is None or teacher - old < 0.02 * teacher:
                    continue
                observed.append(min(0.95, max(-0.5, (new - old) / (teacher - old))))
        # The assumption counts as one pair, and less with more of them.
        return statistics.fmean(observed)


def value_of(quality: Quality, goal: Goal) -> float | None:
    """Return the value of a goal; for a task with several languages the mean over them."""
    if goal.task in quality:
        return quality[goal.task].get(goal.metric)
    values = [found[goal.metric] for task, found in quality.items() if task.startswith(f"{goal.task}.") and goal.metric in found]
    return statistics.fmean(values) if values else None


def _headline(task: EvaluationTask) -> str:
    return "text_to_image_r10" if task.kind == "retrieval" else "top1"
