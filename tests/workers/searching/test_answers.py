"""Answers to the control plane, with a cost model."""

import json
import re
import subprocess
import sys

import pytest
from tinyclip.artifacts.searches import CostModel, EngineCost
from tinyclip_workers.costs.terms import term_names
from tinyclip_workers.searching.answers import advice_or_errors, forecast_or_errors

from tests.workers.searching.world import new_record, post

COEFFICIENTS = {name: 0.2 if name == "constant" else 1e-8 for name in term_names("vit")}
COSTS = CostModel(hardware="a laptop", engines={
    "torch:image:1:1": EngineCost(family="vit", coefficients=COEFFICIENTS, median_error=0.02, p90_error=0.05, layouts=40)
})  # fmt: skip


def record(**changes):
    return new_record(post(**changes)).model_copy(update={"costs": COSTS}).model_dump(mode="json")


def test_advice_begins_a_trial():
    (trial,) = advice_or_errors(record(constraints=[{"latency_ms": {"max": 2}}]))["advice"]["begin"]

    assert trial["number"] == 0


def test_a_latency_that_is_not_in_the_cost_model():
    (error,) = advice_or_errors(record(constraints=[{"latency_ms": {"max": 2}, "batch": 8}]))["errors"]

    assert error["pointer"] == "/constraints"
    assert "has no torch:image:8:1" in error["message"]


def test_limits_that_nothing_can_meet_end_a_search_before_its_first_trial():
    asked = record(constraints=[{"latency_ms": {"max": 0.01}}, {"params": {"max": 10}}, {"bytes": {"max": 1e9}}])

    latency, params = advice_or_errors(asked)["errors"]

    assert (latency["pointer"], params["pointer"]) == ("/constraints/0/latency_ms/max", "/constraints/1/params/max")
    nearest = r"\(torch, batch 1\) of 0.01 ms or less: the smallest has 0.0\d+ ms; raise the limit to 0.0\d+ or more"
    assert re.search(nearest, latency["message"])


def test_a_forecast_has_bounds_and_an_estimate():
    found = forecast_or_errors(record(constraints=[{"latency_ms": {"max": 2}}]))

    assert found["bounds"][0]["is_possible"]
    assert found["estimate"]["trials"] == 12


@pytest.mark.parametrize("path", ["name.first", "stages.4.name"])
def test_a_forecast_refuses_impossible_paths(path):
    (error,) = forecast_or_errors(record(vary={path: [1]}))["errors"]

    assert path in error["message"]


def test_the_planners_process_answers():
    asked = record(constraints=[{"latency_ms": {"max": 2}}])
    lines = [json.dumps({"id": "1", "search": asked}), json.dumps({"id": "2", "search_plan": asked})]

    command = [sys.executable, "-X", "importtime", "-m", "tinyclip_workers.planner"]
    process = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=120)

    assert "optuna" not in process.stderr  # which is long to import, and only for settings
    _, advice, forecast = map(json.loads, process.stdout.splitlines())
    assert advice["advice"]["begin"][0]["number"] == 0
    assert forecast["estimate"]["trials"] == 12
