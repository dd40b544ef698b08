"""What a terminal shows while a job runs."""

import io
import re

from rich.console import Console
from tinyclip.cli.display.bars import Bars
from tinyclip.cli.problems import lines_of
from tinyclip.errors import InvalidRequest
from tinyclip.schemas import Job, Problem

from tests.client.documents import PROBLEM, job

TWO_STAGES = [
    {"index": 0, "name": "three-quarters", "state": "succeeded", "inherit": "manual"},
    {"index": 1, "name": "half", "state": "running", "inherit": "manual", "metrics": {"last": {"loss": 1.25}}},
]


def drawn(*jobs: Job, width: int = 120) -> list[str]:
    """The last lines on a terminal after it has shown these."""
    screen = io.StringIO()
    bars = Bars(Console(file=screen, force_terminal=True, width=width, color_system=None))
    for each in jobs:
        bars.show(each)
    bars.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue().replace("\r", "\n"))
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_each_stage_has_a_bar_with_loss_speed_and_what_remains() -> None:
    progress = {"stage": 1, "step": 30, "steps": 120, "pairs_per_second": 271.6, "eta_seconds": 75.0}
    running = Job.model_validate(job(state="running", attempt=1, progress=progress) | {"stages": TWO_STAGES})

    lines = drawn(running)

    assert lines[0] == "job_1 shapes running"
    assert lines[-2:] == [
        "1/2 three-quarters ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ done",
        "2/2 half           ━━━━━━━╸                       30/120  loss 1.25  272 pairs/s  eta 1m15s",
    ]


def test_a_narrow_terminal_has_room_for_all_of_a_line() -> None:
    progress = {"stage": 1, "step": 1300, "steps": 2000, "pairs_per_second": 271.6, "eta_seconds": 4000.0}
    running = Job.model_validate(job(state="running", attempt=1, progress=progress) | {"stages": TWO_STAGES})

    assert drawn(running, width=80)[-1].endswith("1300/2000  loss 1.25  272 pairs/s  eta 1h06m")


def test_a_state_and_a_new_attempt_are_told_once_above_the_bars() -> None:
    first = Job.model_validate(job(state="running", attempt=1))
    second = Job.model_validate(job(state="running", attempt=2))

    lines = drawn(first, first, second, second)

    assert [line for line in lines if not line.startswith("1/1 half")] == ["job_1 shapes running", "attempt 2"]


def test_a_long_value_is_cut() -> None:
    problem = Problem.model_validate(PROBLEM | {"errors": [{"pointer": "/images/0", "value": "A" * 4000, "message": "no image"}]})

    first, second = lines_of(InvalidRequest(problem))

    assert first.startswith('error: images.0 = "AAAA')
    assert len(first) < 110
    assert second == "  no image"


def test_each_bad_field_has_two_lines() -> None:
    errors = [
        {"pointer": "/nmae", "value": "x", "message": "unknown; did you mean name?"},
        {"pointer": "/name", "message": "is missing"},
    ]

    assert lines_of(InvalidRequest(Problem.model_validate(PROBLEM | {"errors": errors}))) == [
        'error: nmae = "x"', "  unknown; did you mean name?", "error: name", "  is missing",
    ]
