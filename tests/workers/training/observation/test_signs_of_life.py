"""Long phases of an attempt write events now and then: without any for long, the attempt would count as stalled."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tinyclip_workers.training.observation import reporting
from tinyclip_workers.training.observation.reporting import StageEvaluator


class Events:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def send(self, type: str, *, message: str = "", **_: Any) -> None:
        self.sent.append((type, message))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """The events of an evaluation of three samples."""

    def evaluate_tasks(models: Any, tasks: Any, *, on_sample: Any, **_: Any) -> dict[str, Any]:
        for number in range(3):
            on_sample({"__key__": str(number)})
        return {}

    monkeypatch.setattr(reporting, "evaluate_tasks", evaluate_tasks)
    return Events()


def evaluate(events: Events | None) -> None:
    spec = SimpleNamespace(evaluation=SimpleNamespace(tasks=[]), data=SimpleNamespace(train=SimpleNamespace(holdout=0.0)))
    stage = SimpleNamespace(index=1, name="half")
    run = SimpleNamespace(spec=spec)
    evaluator = StageEvaluator(cast(Any, run), cast(Any, stage), None, torch.device("cpu"), cast(Any, events))
    evaluator.evaluate(cast(Any, None), 10)


def test_an_evaluation_reports_the_samples_that_it_has_read(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "EVALUATION_EVERY_S", 0.0)

    evaluate(events)

    assert events.sent == [("evaluation.progress", f"evaluating stage half: {samples} samples") for samples in (1, 2, 3)]


def test_a_short_one_reports_none(events: Events) -> None:
    evaluate(events)

    assert events.sent == []


def test_other_workers_report_none(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "EVALUATION_EVERY_S", 0.0)

    evaluate(None)

    assert events.sent == []
