"""Models from elsewhere, through the command line and the engine itself."""

from pathlib import Path

import pytest

from tests.e2e.world import World
from tests.workers.imports import RunsCommand, save
from tests.workers.models import tiny_model

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray]


def test_an_imported_directory_is_a_teacher_for_the_next_job(world: World) -> None:
    ran = world.service.client("models", "import", world.folder / "teacher", "--name", "brought", "--alias", "best")
    plan = world.service.client(
        "jobs", "submit", world.spec_file, "--dry-run", "--set", "teacher.model=registry:brought@best", "--json"
    )

    assert ran.code == 0, ran.err
    assert "| brought@1" in ran.out
    assert plan.code == 0, plan.err
    assert '"model":"registry:brought@1"' in plan.out


def test_a_hostile_file_is_refused_and_runs_nothing(world: World) -> None:
    marker = world.folder / "was-run"
    file: Path = save(world.folder / "hostile.pt", {"state_dict": tiny_model().state_dict(), "epoch": RunsCommand(marker)})

    ran = world.service.client("models", "import", file, "--preset", "RN50", "--gelu")

    assert (ran.code, ran.out) == (2, "")
    what, why = ran.err.splitlines()[-2:]
    assert what == 'error: file = "hostile.pt"'
    assert "was not opened: it references posix.system" in why
    assert not marker.exists()
    assert not list((world.service.data / "imports").iterdir())
