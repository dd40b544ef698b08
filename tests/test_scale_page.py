"""docs/scale.md has the numbers that bench/scale.py computes, and the recorded results reach their target in CPU time."""

import json

import pytest

from bench.scale import RESULTS
from bench.scale_report import BEGIN, END, PAGE, Inputs, render, size

ONE_SECOND = (
    "open the index", "start an epoch: order", "start an epoch: places of the first batch", "seek to 50%: order and places",
    "seek to 90%: order and places", "places of a batch, one worker",
)  # fmt: skip


def test_the_page_has_the_numbers_of_the_script() -> None:
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0]

    assert table.strip() == render(RESULTS, Inputs()).strip()


def test_other_inputs_change_the_numbers() -> None:
    doubled = render(RESULTS, Inputs.of(["samples=800e6"]))

    assert "| shards stored, and read in an epoch | 24 TB |" in doubled


def test_an_unknown_input_is_named() -> None:
    with pytest.raises(SystemExit, match="there is no input gpu; there are batch, captions"):
        Inputs.of(["gpu=3"])


def test_every_operation_on_400_million_samples_took_less_than_a_cpu_second() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    orders = [line for line in lines if line["kind"] == "order"]

    assert [(line["distinct"], line["processes"]) for line in orders] == [(False, 1), (False, 8), (True, 1), (True, 8)]
    for line in orders:
        assert line["shards"] * line["samples"] == 400_000_000
        assert all(line["cpu_seconds"][name] < 1 for name in ONE_SECOND)  # the machine was shared
        assert max(line["memory_mb"].values()) < 600  # as the page states
        assert line["read"]["requests"] == line["read"]["blocks"]


@pytest.mark.parametrize(("count", "text"), [(8e6, "8 MB"), (1.68e9, "1.68 GB"), (12e12, "12 TB"), (2e15, "2 PB")])
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert size(count) == text
