"""A new version beside the old one: some queries, then all, through the command line and a real Serve."""

from collections import Counter
from pathlib import Path

import pytest
from tinyclip import Student

from tests.e2e.world import Undisturbed, World
from tests.workers.shapes_data import draw_shape

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray, pytest.mark.long]

LABELS = ["a red square", "a blue circle"]


def test_a_canary_has_its_share_of_the_queries_and_then_all(world: World, undisturbed: Undisturbed) -> None:
    old, new = _versions(world, undisturbed)
    picture = world.folder / "canary.png"
    draw_shape("blue", "circle", 32).save(picture)

    begun = world.service.client("deployments", "create", "rollout", "--model", old, "--canary", new, "--canary-weight", "0.5")
    student = world.client.deployments.open("rollout")
    with_canary = _who_answers(student, picture, 40)
    ended = world.service.client("deployments", "create", "rollout", "--model", new)
    with_new_one = _who_answers(world.client.deployments.open("rollout"), picture, 4)
    removed = world.service.client("deployments", "delete", "rollout")

    assert [ran.code for ran in (begun, ended, removed)] == [0, 0, 0], begun.err + ended.err + removed.err
    assert set(with_canary) == {old, new}
    assert 8 <= with_canary[new] <= 32  # outside of this once in 20,000 times
    assert with_new_one == {new: 4}


def _versions(world: World, undisturbed: Undisturbed) -> tuple[str, str]:
    """The student, and the same weights as another version."""
    assert undisturbed.job.model is not None
    old, pulled = f"shapes@{undisturbed.job.model.version}", world.folder / "again"
    assert world.service.client("models", "pull", old, pulled).code == 0
    made = world.client.models.import_file(pulled, name="shapes")
    return old, f"{made.name}@{made.version}"


def _who_answers(student: Student, picture: Path, times: int) -> Counter[str]:
    return Counter(student.zero_shot([picture], LABELS).model for _ in range(times))
