"""The tables at the end of a job and of a comparison."""

from rich.console import Console
from tinyclip.cli.display.console import print_table
from tinyclip.cli.display.summary import comparison_tables, plan_table
from tinyclip.schemas import Comparison, Plan

from tests.client.test_cli_queries import VERSION
from tests.server.documents import LAYOUT


def printed(evaluation: dict[str, dict[str, float]]) -> list[str]:
    comparison = Comparison.model_validate(
        {"models": [VERSION | {"evaluation": evaluation, "teacher": None, "teacher_evaluation": {}}]}
    )
    out = Console(width=150, force_terminal=False)
    with out.capture() as captured:
        for made in comparison_tables(out, comparison):
            print_table(out, made)
    return captured.get().splitlines()


class TestManyTasks:
    def test_one_task_of_each_kind_stands_beside_the_sizes(self) -> None:
        lines = printed({"new": {"top1": 0.4, "top5": 0.7}, "find": {"text_to_image_r1": 0.3, "text_to_image_r10": 0.8}})

        assert "new top-1 / top-5" in lines[0]
        assert "find R@1 / R@10" in lines[0]
        assert len(lines) == 3

    def test_with_more_tasks_a_second_table_has_them_all(self) -> None:
        lines = printed({"new": {"top1": 0.4, "top5": 0.7}, "old": {"top1": 0.5, "top5": 0.75}})

        assert "old" not in lines[0]
        assert [line.split("|")[1:4] for line in lines[5:]] == [
            [" new  ", " top-1 / top-5 ", " 40.0 / 70.0 "],
            [" old  ", " top-1 / top-5 ", " 50.0 / 75.0 "],
        ]


class TestPlans:
    def test_every_teacher_of_an_ensemble_has_a_row(self) -> None:
        text = {"text_params": 900, "text_params_without_embedding": 300}
        sizes = {"image_params": 2_100_000, "macs": 5000, "layout": LAYOUT, **text}
        teachers = [{"model": "ViT-B-32", "pretrained": "openai"}, {"model": "RN50", "pretrained": "openai"}]
        stages = [{"name": "half", "student": {"image": {"layers": 1}}, "train": {"steps": 5}}]
        spec = {"name": "a", "teachers": teachers, "data": {"train": {"shards": "/data/a.tar"}}, "stages": stages}
        plan = Plan.model_validate({
            "spec": spec, "teacher": sizes, "teachers": [sizes, sizes | {"image_params": 7_100_000}], "stages": [], "steps": 5,
            "samples_per_epoch": 10, "device": "cpu", "device_hours": 0.1,
        })
        out = Console(width=150, force_terminal=False)

        with out.capture() as captured:
            print_table(out, plan_table(out, plan))

        first, second = [line for line in captured.get().splitlines() if "teacher" in line]
        assert [part.strip() for part in first.split("|")[1:4:2]] == ["teacher ViT-B-32", "2.1M"]
        assert [part.strip() for part in second.split("|")[1:4:2]] == ["teacher RN50", "7.1M"]
