"""The job that fits cost models: its result and events, also after a kill, a deletion and invalid requests."""

import json
from pathlib import Path
from typing import Any

import pytest
from tinyclip.artifacts.searches import CostModel
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JSON
from tinyclip_workers import jobs
from tinyclip_workers.costs import job as costs_job
from tinyclip_workers.costs.model import Key

from tests.workers.costs.families import vit
from tests.workers.models import tiny_layout, tiny_model, write_folder

ID = "sea_1"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"local-dir:{write_folder(tmp_path_factory.mktemp('teacher'), tiny_model(), tiny_layout())}"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactsStore:
    return ArtifactsStore(str(tmp_path))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the groups that were measured; a layout takes as long as it has products."""
    groups: list[int] = []
    monkeypatch.setattr(costs_job, "GROUP", 6)

    def measure(layouts: list[Any], keys: list[list[Key]], *arguments: object) -> list[dict[str, float]]:
        groups.append(len(layouts))
        return [
            {str(key): 0.1 + 1e-6 * sum(key.terms(layout).values()) for key in of_layout}
            for layout, of_layout in zip(layouts, keys, strict=True)
        ]

    monkeypatch.setattr(costs_job, "measure_layouts", measure)
    return groups


def write_request(store: ArtifactsStore, model: str, attempt: int = 1, **changes: Any) -> None:
    hardware = [{"device": "cpu"}, {"device": "cpu", "batch": 8, "tower": "text"}]
    largest = vit(heads=[8] * 4, mlp=[256] * 4, width=64).model_dump(mode="json")
    request = {
        "teacher": {"model": model}, "largest": largest, "hardware": hardware, "layouts": 10, "attempt": attempt, **changes,
    }  # fmt: skip
    store.write_bytes(f"searches/{ID}/costs-request.json", json.dumps(request).encode())


def run(store: ArtifactsStore, attempt: int = 1) -> int:
    return jobs.main(["costs", "--artifacts", store.root, "--search", ID, "--attempt", str(attempt)])


def events(store: ArtifactsStore, attempt: int = 1) -> list[JSON]:
    folder = f"searches/{ID}/costs/attempts/{attempt}/events"
    return [json.loads(line) for name in store.list(folder) for line in store.read_bytes(f"{folder}/{name}").splitlines()]


def test_every_latency_is_fitted_and_the_teacher_measured(store: ArtifactsStore, teacher: str, measured: list[int]) -> None:
    write_request(store, teacher)

    assert run(store) == 0

    model = CostModel.model_validate_json(store.read_bytes(f"searches/{ID}/costs.json"))
    assert set(model.engines) == set(model.teacher_ms) == {"torch:image:1:1", "torch:text:8:1"}
    assert [cost.family for cost in model.engines.values()] == ["vit", "text"]
    assert [cost.layouts for cost in model.engines.values()] == [10, 10]  # the teacher, a ResNet, is not of the family
    assert all(cost.median_error < 0.02 for cost in model.engines.values())
    assert model.hardware
    assert sum(measured) == 11
    types = [event["type"] for event in events(store)]
    assert (types[0], types[-1]) == ("costs.started", "costs.finished")
    assert [event["data"]["fraction"] for event in events(store) if event["type"] == "costs.progress"][-1] == 1
    assert events(store)[-1]["data"] == model.model_dump(mode="json")


def test_a_later_attempt_continues_after_the_measured_layouts(
    store: ArtifactsStore, teacher: str, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_request(store, teacher)
    measure = costs_job.measure_layouts

    def killed(*arguments: Any) -> list[dict[str, float]]:
        if measured:
            raise RuntimeError("killed")
        return measure(*arguments)

    monkeypatch.setattr(costs_job, "measure_layouts", killed)
    assert run(store) == 1
    monkeypatch.setattr(costs_job, "measure_layouts", measure)
    write_request(store, teacher, attempt=2)
    assert run(store, 2) == 0

    assert measured == [6, 5]
    assert events(store)[-1]["type"] == "costs.failed"
    assert events(store, 2)[-1]["type"] == "costs.finished"


def test_an_attempt_that_finds_the_result_reports_it_again(store: ArtifactsStore, teacher: str, measured: list[int]) -> None:
    write_request(store, teacher)
    assert run(store) == 0
    write_request(store, teacher, attempt=2)

    assert run(store, 2) == 0

    assert len(measured) == 2
    assert events(store, 2)[-1]["data"] == events(store)[-1]["data"]


def test_a_deleted_search_and_a_later_attempt_end_it_without_a_result(
    store: ArtifactsStore, teacher: str, measured: list[int]
) -> None:
    assert run(store) == 0
    write_request(store, teacher, attempt=2)
    assert run(store) == 0

    assert measured == []
    assert events(store) == []
    assert not store.exists(f"searches/{ID}/costs.json")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"teacher": {"model": "local-dir:/nowhere"}}, "unreadable_model", "there is no model folder"),
        ({"hardware": []}, "costs_failed", "there is no latency to fit"),
        ({"hardware": [{"engine": "auto"}]}, "costs_failed", "is not a request for costs"),
    ],
)
def test_a_request_that_cannot_be_met_fails(
    store: ArtifactsStore, teacher: str, changes: JSON, code: str, message: str
) -> None:
    write_request(store, teacher, **changes)

    assert run(store) == 1

    failed = events(store)[-1]
    assert (failed["type"], failed["data"]["code"]) == ("costs.failed", code)
    assert message in failed["message"]


def test_a_teacher_of_the_family_is_fitted_as_well(store: ArtifactsStore, teacher: str, measured: list[int]) -> None:
    write_request(store, teacher, largest=None, hardware=[{"device": "cpu", "tower": "text"}])

    assert run(store) == 0

    assert CostModel.model_validate(events(store)[-1]["data"]).engines["torch:text:1:1"].layouts == 11


def test_large_layouts_are_measured_in_small_groups(
    store: ArtifactsStore, teacher: str, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs_job, "GROUP_BYTES", 1)
    write_request(store, teacher)

    assert run(store) == 0

    assert measured == [1] * 11
