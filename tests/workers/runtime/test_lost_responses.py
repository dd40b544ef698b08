"""What workers write to a store whose responses are lost: each event once, one driver, one generation, valid manifests."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tinyclip.artifacts import remote
from tinyclip.artifacts.documents import IndexRequest, JobDocument
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import IndexSource
from tinyclip_workers.retrieval.commits import commit, newest
from tinyclip_workers.retrieval.generations import Generation
from tinyclip_workers.retrieval.parts import BuildState, ConcurrentBuild, EncodedParts
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.runtime.committed import read_committed, write_committed
from tinyclip_workers.runtime.events import EventLogHandler, EventWriter

from tests.fault_proxy import Fault, FaultProxy
from tests.s3 import BUCKET

EVERY_OTHER_LOST = Fault("drop", probability=0.5, seed=1)
FIRST_LOST = Fault("drop", methods=("PUT",), numbers=(1,))


@pytest.fixture
def store(faulty_s3: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactsStore:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    store = ArtifactsStore(f"s3://{BUCKET}/{tmp_path.name}")
    assert not store.exists("a")  # its client exists now, which takes longer than the time limits here
    return store


def messages(store: ArtifactsStore, folder: str) -> list[str]:
    """Return the messages of all events, as a reader of the segments finds them."""
    segments = [store.read_bytes(f"{folder}/{name}").decode() for name in store.list(folder)]
    return [json.loads(line)["message"] for segment in segments for line in segment.splitlines()]


class TestEvents:
    def test_one_event_is_one_segment(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        events = EventWriter(store, "events", 1)
        faulty_s3.set(FIRST_LOST)

        events.send("attempt.started", message="1")

        assert store.list("events") == ["00000001.jsonl"]
        assert messages(store, "events") == ["1"]

    def test_two_writers_that_send_the_same_keep_both(self, store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tinyclip_workers.runtime.events.datetime", _StoppedClock)
        driver, worker = EventWriter(store, "events", 1), EventWriter(store, "events", 1)

        for events in (driver, worker):
            events.send("stage.started", message="same")

        assert messages(store, "events") == ["same", "same"]

    def test_events_of_a_failed_write_are_written_once_by_the_next(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        events = EventWriter(ArtifactsStore(store.root, limit_s=3.0), "events", 1)
        faulty_s3.set(Fault("hang", methods=("PUT",)))  # committed, but the writer is not informed
        with pytest.raises(StoreUnavailable):
            events.send("stage.started", message="1")
        faulty_s3.set()

        events.send("stage.finished", message="2")

        assert messages(store, "events") == ["1", "2"]

    def test_a_log_line_that_cannot_be_written_now_does_not_disturb_its_caller(
        self, store: ArtifactsStore, faulty_s3: FaultProxy, capsys: pytest.CaptureFixture[str]
    ) -> None:
        events = EventWriter(ArtifactsStore(store.root, limit_s=3.0), "events", 1, interval_s=0)
        logger = logging.Logger("test")
        logger.addHandler(EventLogHandler(events, "worker"))
        faulty_s3.set(Fault("hang", methods=("PUT",)))
        logger.warning("1")
        faulty_s3.set()

        logger.warning("2")

        assert messages(store, "events") == ["1", "2"]
        assert "StoreUnavailable" in capsys.readouterr().err

    def test_threads_write_each_event_once(self, tmp_path: Path) -> None:
        store = ArtifactsStore(str(tmp_path))
        events = EventWriter(store, "events", 1, interval_s=0)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: events.send("log", message=str(number)), range(200)))

        assert sorted(map(int, messages(store, "events"))) == list(range(200))

    def test_writing_under_many_lost_responses_keeps_number_and_order(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        events = EventWriter(store, "events", 1)
        faulty_s3.set(Fault("drop", methods=("PUT",), probability=0.4, seed=3))

        for number in range(12):
            events.send("stage.started", message=str(number))

        assert messages(store, "events") == [str(number) for number in range(12)]
        assert store.list("events") == [f"{number:08d}.jsonl" for number in range(1, 13)]


class _StoppedClock:
    @staticmethod
    def now(zone: object) -> str:
        return "2026-01-01T00:00:00Z"


class TestDriver:
    @pytest.mark.parametrize("fault", [FIRST_LOST, Fault("error", methods=("PUT",), numbers=(1,))], ids=["dropped", "503"])
    def test_only_the_first_one_begins(self, store: ArtifactsStore, faulty_s3: FaultProxy, fault: Fault) -> None:
        run = JobAttempt(store, JobDocument.model_construct(job="job_a"), 1)
        faulty_s3.set(fault)

        assert run.register_driver()

        assert not run.register_driver(), "a repeated submission starts another driver of the attempt"


class TestCommits:
    def test_a_manifest_is_valid_and_an_outage_is_no_incomplete_folder(
        self, store: ArtifactsStore, faulty_s3: FaultProxy
    ) -> None:
        faulty_s3.set(EVERY_OTHER_LOST)
        files = {"model": b"1" * 1000, "state": b"2"}

        write_committed(store, "step-1", files)

        assert read_committed(store, "step-1") == files
        faulty_s3.set(Fault("hang", path="state", forward=False))
        with pytest.raises(StoreUnavailable):
            read_committed(ArtifactsStore(store.root, limit_s=1.0), "step-1")

    def test_a_generation_is_committed_once(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        mine, theirs = (generation(nonce) for nonce in ("mine", "theirs"))
        faulty_s3.set(FIRST_LOST)

        assert commit(store, mine)

        assert not commit(store, theirs)
        assert newest(store, "gallery") == mine
        assert store.list("indexes/gallery/generations") == ["000000001.json"]

    def test_a_part_belongs_to_one_of_two_builds_of_the_same_items(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        first, second = EncodedParts(store, index_request(), []), EncodedParts(store, index_request(), [])
        part = np.ones((1, 4), np.float32), [("a", {})], [None], BuildState(items=1)
        faulty_s3.set(FIRST_LOST)

        first.add(*part)

        with pytest.raises(ConcurrentBuild):
            second.add(*part)
        assert [items for _, items in first] == [[("a", {})]]


def generation(nonce: str) -> Generation:
    return Generation(name="gallery", number=1, nonce=nonce, build=1, model="m@1", embed_dim=4, count=0, kind="exact")


def index_request() -> IndexRequest:
    source = IndexSource(shards=[])
    return IndexRequest(name="gallery", job="j", build=1, model="m@1", model_uri="x", embed_dim=4, source=source)
