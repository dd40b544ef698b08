"""A retry's first attempt adopts the checkpoints of ended jobs, and may be killed at any file."""

from pathlib import Path

import pytest
from tinyclip.artifacts.documents import JobDocument
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.committed import read_committed, write_committed
from tinyclip_workers.training.checkpoints import adopt, checkpoints_of

STAGES = [{"name": name, "student": {"image": {"layers": 2}}, "train": {"steps": 10}} for name in ("first", "second")]
SPEC = {
    "name": "x", "teacher": {"model": "ViT-B-32"}, "data": {"train": {"shards": "x.tar"}}, "stages": STAGES,
}


class Killed(BaseException):
    pass


@pytest.fixture
def store(tmp_path: Path) -> ArtifactsStore:
    return ArtifactsStore(str(tmp_path))


def retry_of(store: ArtifactsStore, *jobs: str) -> JobAttempt:
    spec = JobSpec.model_validate(SPEC)
    return JobAttempt(store, JobDocument(job="new", name="x", spec=spec, model_name="x", model_version=2, adopts=list(jobs)), 1)


def write(store: ArtifactsStore, path: str, text: str) -> None:
    write_committed(store, f"jobs/{path}", {"model.safetensors": text.encode(), "state.json": b"{}"})


def steps(store: ArtifactsStore, stage: str) -> list[tuple[int, int]]:
    return [(step, attempt) for step, attempt, _ in checkpoints_of(store, f"jobs/new/stages/{stage}")]


def test_the_furthest_checkpoint_of_the_unfinished_stage_is_adopted(store: ArtifactsStore) -> None:
    write(store, "old/stages/0-first/student", "done")
    write(store, "old/stages/0-first/a1/step-10", "superseded by the student")
    write(store, "old/stages/1-second/a1/step-4", "earlier")
    write(store, "old/stages/1-second/a2/step-12", "furthest")

    assert adopt(retry_of(store, "old")) == "jobs/old/stages/1-second/a2/step-12"

    assert (read_committed(store, "jobs/new/stages/0-first/student") or {})["model.safetensors"] == b"done"
    assert steps(store, "0-first") == []
    assert steps(store, "1-second") == [(12, 0)]
    assert (read_committed(store, "jobs/new/stages/1-second/a0/step-12") or {})["model.safetensors"] == b"furthest"


def test_instead_of_a_torn_checkpoint_the_previous_one_is_adopted(store: ArtifactsStore) -> None:
    write(store, "old/stages/0-first/a1/step-4", "whole")
    write(store, "old/stages/0-first/a1/step-8", "to be torn")
    store.write_bytes("jobs/old/stages/0-first/a1/step-8/model.safetensors", b"torn")

    adopt(retry_of(store, "old"))

    assert steps(store, "0-first") == [(4, 0)]


def test_of_several_jobs_the_furthest_is_adopted(store: ArtifactsStore) -> None:
    write(store, "older/stages/0-first/a1/step-8", "further")
    write(store, "old/stages/0-first/a1/step-4", "nearer")

    assert adopt(retry_of(store, "old", "older")) == "jobs/older/stages/0-first/a1/step-8"


def test_an_adopted_checkpoint_outlives_its_job(store: ArtifactsStore) -> None:
    write(store, "old/stages/0-first/a1/step-4", "kept")
    run = retry_of(store, "old")
    adopt(run)

    store.remove("jobs/old")

    assert (read_committed(store, "jobs/new/stages/0-first/a0/step-4") or {})["model.safetensors"] == b"kept"
    assert adopt(run) is None


def test_without_a_checkpoint_nothing_is_adopted(store: ArtifactsStore) -> None:
    assert adopt(retry_of(store, "old")) is None
    assert adopt(retry_of(store)) is None
    assert not store.exists("jobs/new")


@pytest.mark.parametrize("files", range(6))
def test_killed_after_any_file_the_next_attempt_completes_it(
    store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    write(store, "old/stages/0-first/student", "done")
    write(store, "old/stages/1-second/a1/step-4", "furthest")
    copy, copied = ArtifactsStore.copy, []

    def killed(self: ArtifactsStore, source: str, target: str) -> None:
        if len(copied) == files:
            raise Killed
        copied.append(target)
        copy(self, source, target)

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactsStore, "copy", killed)
        with pytest.raises(Killed):
            adopt(retry_of(store, "old"))
    for folder in ("0-first/student", "1-second/a0/step-4"):
        whole = read_committed(store, f"jobs/new/stages/{folder}")
        assert whole is None or set(whole) == {"model.safetensors", "state.json"}

    adopt(retry_of(store, "old"))

    assert (read_committed(store, "jobs/new/stages/0-first/student") or {})["model.safetensors"] == b"done"
    assert (read_committed(store, "jobs/new/stages/1-second/a0/step-4") or {})["model.safetensors"] == b"furthest"


def test_an_attempt_has_one_driver(store: ArtifactsStore) -> None:
    run = retry_of(store)
    following = JobAttempt(store, run.document, 2)

    assert [run.register_driver(), run.register_driver(), following.register_driver()] == [True, False, True]
