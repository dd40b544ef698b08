"""Plans of jobs that train from a reinforcement: what it saves, and one that does not belong to the job."""

from pathlib import Path
from typing import Any

import pytest
from tinyclip.addresses import ARTIFACTS_ROOT
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import DatasetVersion, FieldError, Plan, ReinforcementCost
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.reinforcement import cost_or_errors
from tinyclip_workers.plan.specs import plan_or_errors

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.plan_specs import Document, spec, write_data
from tests.workers.registered import DATASET, ID, register, reinforce_here, request_reinforcement

POINTER = "/data/train/reinforcement"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a reinforcement by its teacher."""
    folder = write_data(tmp_path_factory.mktemp("plans"))
    store = ArtifactsStore(str(folder / "store"))
    register(store, f"{folder}/train-{{0..1}}.tar", image_key=["png"], caption_key="json.captions", holdout=0.1)
    reinforce_here(store, request_reinforcement(store, teacher={"model": f"local-dir:{folder}/teacher"}, augmentations=2))
    return folder


@pytest.fixture(autouse=True)
def artifacts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ARTIFACTS_ROOT, str(folder / "store"))


def answer_of(folder: Path, reinforcement: str | None = ID, **changes: Any) -> Document:
    document = spec(folder)
    version = DatasetVersion.model_validate_json((folder / f"store/datasets/{DATASET}/1/dataset.json").read_bytes())
    document["data"] = {"train": {
        "dataset": f"{DATASET}@1", "image_key": ["png"], "caption_key": "json.captions", "holdout": 0.1,
        "reinforcement": reinforcement,
    }}  # fmt: skip
    document["evaluation"] = {}
    return plan_or_errors(document | changes, dataset=version.model_dump(mode="json"))


def plan_of(folder: Path, reinforcement: str | None = ID, **changes: Any) -> Plan:
    return Plan.model_validate(answer_of(folder, reinforcement, **changes)["plan"])


def error_of(folder: Path, reinforcement: str | None = ID, **changes: Any) -> FieldError:
    [error] = answer_of(folder, reinforcement, **changes)["errors"]
    return FieldError.model_validate(error)


def test_the_hours_of_the_teacher_are_saved(folder: Path) -> None:
    live, stored = plan_of(folder, None), plan_of(folder)

    assert live.saved_device_hours == 0
    assert stored.saved_device_hours > 0
    assert stored.device_hours + stored.saved_device_hours == pytest.approx(live.device_hours)


def test_a_reinforcement_by_another_teacher_is_refused(folder: Path) -> None:
    write_folder(folder / "other", tiny_model(seed=3), tiny_layout())

    error = error_of(folder, teacher={"model": f"local-dir:{folder}/other"})

    assert (error.pointer, error.value) == (POINTER, ID)
    assert "the weights of teacher 0 (other) was" in error.message
    assert "make a reinforcement for this job, or omit" in error.message


def test_one_that_does_not_exist_is_refused(folder: Path) -> None:
    error = error_of(folder, "reinf_0000000000000000")

    assert (error.pointer, error.value) == (POINTER, "reinf_0000000000000000")
    assert "is not complete, or was deleted" in error.message


def test_one_that_no_stage_uses_is_a_warning(folder: Path) -> None:
    plan = plan_of(folder, objective={"affinity": 0, "contrastive": 1})

    assert any("so the reinforcement is not used" in warning for warning in plan.warnings)


def test_only_the_server_knows_reinforcements(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ARTIFACTS_ROOT)

    messages = [FieldError.model_validate(error).message for error in answer_of(folder)["errors"]]

    assert any("only the server knows its reinforcements" in message for message in messages)


def cost_of(folder: Path, **changes: Any) -> Document:
    request = {"teacher": {"model": f"local-dir:{folder}/teacher"}, "augmentations": 2, **changes}
    return cost_or_errors({"dataset": DATASET, "version": 1, "request": request}, Diagnostics())


def test_the_cost_of_a_reinforcement_is_estimated(folder: Path) -> None:
    cost = ReinforcementCost.model_validate(cost_of(folder)["cost"])

    assert cost.views > 2 * 40
    assert cost.bytes > 0
    assert cost.epochs_to_pay > 0


def test_a_cost_without_its_teacher_is_an_error_of_the_request(folder: Path) -> None:
    [error] = cost_of(folder, teacher={"model": "local-dir:/nowhere"})["errors"]

    assert (error["pointer"], error["value"]) == ("/teacher/model", "local-dir:/nowhere")
