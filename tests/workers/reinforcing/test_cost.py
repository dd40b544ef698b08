"""The estimate of what a reinforcement costs and saves."""

from pathlib import Path

import pytest
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.datasets import ReinforcementPost
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.reinforcing.cost import estimate

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.registered import DATASET, register, reinforce_here, request_reinforcement


def post_of(teacher: str, **changes: object) -> ReinforcementPost:
    return ReinforcementPost.model_validate({"teacher": {"model": teacher}, "augmentations": 4, **changes})


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_bytes_and_counts_are_those_of_the_reinforcement(tmp_path: Path, shards: str, teacher: str, dtype: str) -> None:
    store = ArtifactsStore(str(tmp_path))
    register(store, shards, caption_key="json.captions")
    folder = request_reinforcement(store, teacher={"model": teacher}, augmentations=4, dtype=dtype)
    reinforce_here(store, folder)
    document = StoredReinforcement.open(store, folder).document

    cost = estimate(store, DATASET, 1, post_of(teacher, dtype=dtype))

    assert cost.views == document.views
    assert document.texts <= cost.texts <= 2 * document.texts
    assert document.bytes * 0.9 < cost.bytes < document.bytes * 1.1 + 10_000
    assert cost.seconds > 0
    assert 0.3 < cost.teacher_share < 0.7
    assert cost.epochs_to_pay > 1


def test_a_teacher_that_is_missing_is_named(tmp_path: Path, shards: str) -> None:
    store = ArtifactsStore(str(tmp_path))
    register(store, shards)

    with pytest.raises(TeacherError, match="nowhere"):
        estimate(store, DATASET, 1, post_of(f"local-dir:{tmp_path}/nowhere"))


def test_a_version_that_does_not_exist_is_named(tmp_path: Path, teacher: str) -> None:
    with pytest.raises(DataError, match="there is no version 3 of data set shapes"):
        estimate(ArtifactsStore(str(tmp_path)), DATASET, 3, post_of(teacher))


def test_a_second_teacher_may_read_shorter_texts(tmp_path: Path, shards: str, teacher: str) -> None:
    store = ArtifactsStore(str(tmp_path / "store"))
    register(store, shards)
    layout = tiny_layout()
    write_folder(tmp_path / "short", tiny_model(layout=layout), layout)
    post = ReinforcementPost.model_validate({"teachers": [{"model": teacher}, {"model": f"local-dir:{tmp_path}/short"}]})

    assert estimate(store, DATASET, 1, post).seconds > 0
