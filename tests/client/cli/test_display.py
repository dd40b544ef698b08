"""Bars, tables and errors as they are printed."""

import io
import re

from rich.console import Console
from rich.table import Table
from tinyclip.cli.display.bars import Bars
from tinyclip.cli.display.console import print_table
from tinyclip.cli.display.numbers import curve
from tinyclip.cli.display.summary import Row, _tables, comparison_tables, plan_table
from tinyclip.cli.problems import lines_of
from tinyclip.errors import InvalidRequest
from tinyclip.schemas import Comparison, Job, Plan, Problem

from tests.client.documents import PROBLEM, job, student, version

TWO_STAGES = [
    {"index": 0, "name": "three-quarters", "state": "succeeded", "inherit": "manual"},
    {"index": 1, "name": "half", "state": "running", "inherit": "manual", "metrics": {"last": {"loss": 1.25}}},
]


class TestBars:
    @staticmethod
    def drawn(*jobs: Job, width: int = 120) -> list[str]:
        """Return the last lines on a terminal that has shown these states."""
        screen = io.StringIO()
        bars = Bars(Console(file=screen, force_terminal=True, width=width, color_system=None))
        for each in jobs:
            bars.show(each)
        bars.close()
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue().replace("\r", "\n"))
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def test_each_stage_has_a_bar_with_loss_speed_and_remaining_time(self) -> None:
        progress = {"stage": 1, "step": 30, "steps": 120, "pairs_per_second": 271.6, "eta_seconds": 75.0}

        lines = self.drawn(Job.model_validate(job(state="running", attempt=1, progress=progress) | {"stages": TWO_STAGES}))

        assert lines[0] == "job_1 shapes running"
        assert lines[-2:] == [
            "1/2 three-quarters ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ done",
            "2/2 half           ━━━━━━━╸                       30/120  loss 1.25  272 pairs/s  eta 1m15s",
        ]

    def test_a_line_fits_a_narrow_terminal(self) -> None:
        progress = {"stage": 1, "step": 1300, "steps": 2000, "pairs_per_second": 271.6, "eta_seconds": 4000.0}
        running = Job.model_validate(job(state="running", attempt=1, progress=progress) | {"stages": TWO_STAGES})

        assert self.drawn(running, width=80)[-1].endswith("1300/2000  loss 1.25  272 pairs/s  eta 1h06m")

    def test_a_state_and_a_new_attempt_are_printed_once_above_the_bars(self) -> None:
        first, second = (Job.model_validate(job(state="running", attempt=attempt)) for attempt in (1, 2))

        lines = self.drawn(first, first, second, second)

        assert [line for line in lines if not line.startswith("1/1 half")] == ["job_1 shapes running", "attempt 2"]


class TestTables:
    out = Console(width=150, force_terminal=False)

    def printed(self, *tables: Table) -> list[str]:
        with self.out.capture() as captured:
            for table in tables:
                print_table(self.out, table)
        return captured.get().splitlines()

    def compared(self, evaluation: dict[str, dict[str, float]]) -> list[str]:
        model = version(evaluation=evaluation, teacher=None, teacher_evaluation={})
        return self.printed(*comparison_tables(self.out, Comparison.model_validate({"models": [model]})))

    def test_the_first_task_of_each_kind_is_beside_the_sizes(self) -> None:
        lines = self.compared({"new": {"top1": 0.4, "top5": 0.7}, "find": {"text_to_image_r1": 0.3, "text_to_image_r10": 0.8}})

        assert "new top-1 / top-5" in lines[0]
        assert "find R@1 / R@10" in lines[0]
        assert len(lines) == 3

    def test_a_second_table_has_all_tasks_if_there_are_more(self) -> None:
        lines = self.compared({"new": {"top1": 0.4, "top5": 0.7}, "old": {"top1": 0.5, "top5": 0.75}})

        assert "old" not in lines[0]
        assert [line.split("|")[1:4] for line in lines[5:]] == [
            [" new  ", " top-1 / top-5 ", " 40.0 / 70.0 "],
            [" old  ", " top-1 / top-5 ", " 50.0 / 75.0 "],
        ]

    def test_every_teacher_of_an_ensemble_has_a_row(self) -> None:
        spec = {key: value for key, value in job()["spec"].items() if key != "teacher"}
        spec["teachers"] = [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "RN50", "pretrained": "openai"}]
        first, second = student(2_100_000, 300, 5000), student(7_100_000, 300, 5000)
        plan = Plan.model_validate({
            "spec": spec, "teacher": first, "teachers": [first, second], "stages": [], "steps": 5, "samples_per_epoch": 10,
            "device": "cpu", "device_hours": 0.1,
        })  # fmt: skip

        rows = [line for line in self.printed(plan_table(self.out, plan)) if "teacher" in line]

        assert [[cell.strip() for cell in row.split("|")[1:4:2]] for row in rows] == [
            ["teacher ViT-B-32", "2.1M"], ["teacher RN50", "7.1M"],
        ]  # fmt: skip

    def test_a_peak_is_seen_in_a_curve_that_is_narrower_than_the_series(self) -> None:
        assert curve([1.0] * 50 + [9.0] + [1.0] * 49, width=10) == "▁▁▁▁▁█▁▁▁▁"


class TestErrors:
    def test_a_long_value_is_cut(self) -> None:
        errors = [{"pointer": "/images/0", "value": "A" * 4000, "message": "no image"}]

        first, second = lines_of(InvalidRequest(Problem.model_validate(PROBLEM | {"errors": errors})))

        assert first.startswith('error: images.0 = "AAAA')
        assert len(first) < 110
        assert second == "  no image"

    def test_each_invalid_field_has_two_lines(self) -> None:
        errors = [
            {"pointer": "/nmae", "value": "x", "message": "unknown; did you mean name?"},
            {"pointer": "/name", "message": "is missing"},
        ]

        assert lines_of(InvalidRequest(Problem.model_validate(PROBLEM | {"errors": errors}))) == [
            'error: nmae = "x"', "  unknown; did you mean name?", "error: name", "  is missing",
        ]


def test_a_table_of_students_shows_what_each_kept_of_its_teacher() -> None:
    of_teacher = {"find": {"text_to_image_r1": 0.4, "text_to_image_r10": 0.8}, "name": {"top1": 0.5, "top5": 0.9}}
    of_student = {"find": {"text_to_image_r1": 0.3, "text_to_image_r10": 0.6}, "name": {"top1": 0.49, "top5": 0.8}}
    sizes = ("1M", "1M", "1M")
    out = Console(width=200, file=io.StringIO())

    [table] = _tables(out, [Row("teacher", sizes, of_teacher), Row("half", sizes, of_student, teacher=of_teacher)])

    kept = next(column for column in table.columns if str(column.header).startswith("kept "))
    assert str(kept.header) == "kept R@10 / top-1"
    assert [str(cell) for cell in kept.cells] == ["–", "75.0% / 98.0%"]


def test_a_table_without_a_teacher_has_no_such_column() -> None:
    scores = {"name": {"top1": 0.5, "top5": 0.9}}

    [table] = _tables(Console(file=io.StringIO()), [Row("alone", ("1M", "1M", "1M"), scores)])

    assert not any("kept" in str(column.header) for column in table.columns)
