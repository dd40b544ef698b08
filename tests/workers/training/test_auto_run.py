"""An automatic stage on a real local Ray with two workers, killed after its prune step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import load_folder

from tests.workers.auto_stages import PRUNE_STEP, TEACHER, auto, spec_of
from tests.workers.models import write_folder
from tests.workers.ray_jobs import RAY_MARKS, Artifacts
from tests.workers.ray_workers import kill_train_workers
from tests.workers.shapes_data import write_shards

pytestmark = [*RAY_MARKS, pytest.mark.long]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], JobSpec]:
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    write_folder(folder / "teacher", build_model(TEACHER), TEACHER)
    shards = write_shards(folder / "data")
    stage = {**auto(0.4), "train": {"steps": PRUNE_STEP + 40}}
    return lambda: spec_of(
        shards,
        stage,
        teacher={"model": f"local-dir:{folder}/teacher"},
        averaging={"decay": 0.9},
        resources={"workers": 2},
        checkpoint={"every_steps": PRUNE_STEP // 2, "keep": 2},
    )


def student(artifacts: Artifacts) -> dict[str, torch.Tensor]:
    return load_folder(str(artifacts.folder / "models" / "shapes" / "1")).model.state_dict()


def test_killed_after_the_prune_step_two_workers_end_with_the_same_student(
    tmp_path: Path, spec: Callable[[], JobSpec]
) -> None:
    uninterrupted, broken = (Artifacts(tmp_path / name, spec()) for name in ("uninterrupted", "broken"))
    killed: list[int] = []
    broken.when("checkpoint", lambda: killed.extend(kill_train_workers()), step=PRUNE_STEP + 1)

    assert uninterrupted.attempt(1)
    assert broken.attempt(1)

    assert len(killed) >= 2  # and the processes that load data for them
    assert "worker.restarted" in broken.types(1)
    assert "stage.pruned" in broken.types(1)
    compared = [next(e["data"] for e in job.events(1) if e["type"] == "average.compared") for job in (uninterrupted, broken)]
    assert compared[0] == compared[1]
    wanted, found = student(uninterrupted), student(broken)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
