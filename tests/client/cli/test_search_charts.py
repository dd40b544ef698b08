"""The chart of a search, and the words for what a trial is."""

from typing import Any

import pytest
from tinyclip.cli.display.front import front_chart
from tinyclip.cli.display.goals import goals_of, minimized
from tinyclip.cli.display.scatter import ASCII, Mark, scatter
from tinyclip.cli.display.trials import chosen
from tinyclip.schemas import Search, SearchPost

from tests.client.cli.test_searches import SPEC, search

CONSTRAINTS = [
    {"latency_ms": {"max": 4}, "engine": "openvino"},
    {"bytes": {"max": 2e7}},
    {"task": "emoji", "keep": 0.95},
]  # fmt: skip
TRIALS = [
    {"number": number, "job": None, "state": "succeeded", "bytes": size, "quality": {"emoji": {"top1": top1}}}
    for number, (size, top1) in enumerate([(4_000_000, 0.3), (16_000_000, 0.55), (9_000_000, 0.45), (30_000_000, 0.58)])
]


def candidate(trial: int, latency: float | None) -> dict[str, Any]:
    measured = [{"engine": "openvino", "latency_ms": {"image:1": latency}}] if latency else []
    model = {"name": f"emoji-{trial}", "version": 1}
    return {"model": model, "trial": trial, "params": 1, "macs": 1, "is_feasible": True, "measurements": measured}


def searched(*front: dict[str, Any], **changes: Any) -> Search:
    post = {"spec": SPEC, "constraints": CONSTRAINTS}
    quality = {"emoji": {"top1": 0.6}}
    document = search(trials=TRIALS, front=list(front), teacher_quality=quality, recommended=front[0] if front else None)
    return Search.model_validate({**document, "post": post, **changes})


def drawn(shown: Search) -> list[str]:
    chart = front_chart(shown, 60)
    assert chart is not None
    return chart.plain.splitlines()


def test_all_trials_are_over_their_size_before_latencies_are_measured() -> None:
    lines = drawn(searched())

    assert lines[0] == "emoji top-1 in % of the teacher, over file size"
    assert sum(line.count(" .") for line in lines[1:-3]) >= 1
    assert lines[-2].split() == ["3.22MB", "17.3MB", "30.8MB"]
    assert lines[-1] == ". trials  :. limits"
    assert max(map(len, lines)) <= 60


def test_finalists_are_over_their_latency() -> None:
    lines = drawn(searched(candidate(1, 3.0), candidate(0, 1.5)))

    assert lines[0] == "emoji top-1 in % of the teacher, over image latency (openvino, batch 1)"[:59] + "…"
    assert sum(line.count("*") for line in lines[1:-2]) == 1
    assert lines[-2:] == [". other trials  o front  * recommended  :. limits", "2 trials without a measurement are not shown"]


def test_without_a_teacher_the_values_are_shown() -> None:
    assert drawn(searched(teacher_quality={}))[0] == "emoji top-1 in %, over file size"


@pytest.mark.parametrize("changes", [{"trials": []}, {"trials": TRIALS[:1]}, {"trials": [TRIALS[0], TRIALS[0]]}])
def test_there_is_no_chart_of_one_size(changes: dict[str, Any]) -> None:
    assert front_chart(searched(**changes)) is None


def test_a_chart_of_points_and_limits() -> None:
    marks = [Mark(1, 0, "."), Mark(2, 10, "*")]

    chart = scatter(marks, width=40, frame=ASCII, x_label="{:.0f}".format, y_label="{:.0f}".format, x_limit=3, y_limit=5)

    lines = chart.plain.splitlines()
    assert lines[0] == "10 |" + " " * 18 + "*" + " " * 15 + ":"
    assert lines[13] == " 0 | ." + " " * 32 + ":"
    assert lines[7] == "   |" + "." * 34 + ":."
    assert lines[-1].split() == ["1", "2", "3"]


def test_what_was_chosen() -> None:
    size = {"image": 0.42, "text": 1.0, "image_layers": [1, 2, 2, 1], "text_layers": 1}

    assert chosen({"size": size, "continues": 3, "scale": 0.5, "optimizer.lr": 2e-4}, ["optimizer.lr"]) == (
        "image 42% in 6 blocks, text whole in 1 block, optimizer.lr 0.0002, continues trial 3"
    )


def test_goals_and_the_minimised_cost() -> None:
    post = SearchPost.model_validate({"spec": SPEC, "constraints": CONSTRAINTS, "minimize": "params"})

    assert [goal.name for goal in goals_of(post)] == ["emoji top-1"]
    assert [goal.name for goal in goals_of(post.model_copy(update={"constraints": []}))] == ["emoji top-1"]
    assert (str(minimized(post)), minimized(post).limit) == ("parameters", None)


def test_a_task_with_languages_has_their_mean() -> None:
    post = SearchPost.model_validate({"spec": SPEC, "constraints": CONSTRAINTS})

    assert goals_of(post)[0].value({"emoji.en": {"top1": 0.5}, "emoji.de": {"top1": 0.4}}) == pytest.approx(0.45)
