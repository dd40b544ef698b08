"""A whole job without a cluster on a store that loses responses: the same student, each event once, one version."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tinyclip.artifacts import remote
from tinyclip.artifacts.paths import MANIFEST, attempt_events
from tinyclip_workers.runtime.committed import read_committed

from tests.fault_proxy import Fault, FaultProxy
from tests.s3 import BUCKET
from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import auto

STAGE = {**auto(0.5, "whole", prune_step=6), "train": {"steps": 12}}


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    torch.set_num_threads(1)
    with no_cluster():
        yield


def test_lost_responses_change_nothing(tmp_path: Path, faulty_s3: FaultProxy) -> None:
    spec = specs_in(tmp_path)(STAGE)
    undisturbed, disturbed = Job(tmp_path / "artifacts", spec), Job(f"s3://{BUCKET}/{tmp_path.name}", spec)
    assert undisturbed.attempt()
    faulty_s3.set(Fault("drop", probability=0.08, seed=5), Fault("error", probability=0.04, seed=6))
    faulty_s3.forget_requests()

    assert disturbed.attempt()

    lost = [request for request in faulty_s3.requests() if request["faults"]]
    assert any(request["method"] == "PUT" and "events" in request["path"] for request in lost)
    faulty_s3.set()
    wanted, found = undisturbed.weights(), disturbed.weights()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert types(disturbed) == types(undisturbed)
    assert disturbed.store.list("models/shapes") == ["1"]
    manifests = [file.path for file in disturbed.store.find("jobs") if file.path.endswith(MANIFEST)]
    assert manifests
    for path in manifests:
        assert read_committed(disturbed.store, path.removesuffix(f"/{MANIFEST}")) is not None, path


def types(job: Job) -> list[str]:
    """Return the types of all events but those whose number depends on the time."""
    folder = attempt_events("job_1", 1)
    segments = [job.store.read_bytes(f"{folder}/{name}").decode() for name in job.store.list(folder)]
    found = [json.loads(line)["type"] for segment in segments for line in segment.splitlines()]
    return [type for type in found if type not in ("log", "progress")]
