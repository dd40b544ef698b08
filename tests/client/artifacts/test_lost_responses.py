"""A store on S3 whose responses are lost, late or wrong: what was written counts once, and no call waits without limit."""

import time
from pathlib import Path

import fsspec
import pytest
from s3fs import S3FileSystem
from tinyclip.artifacts import remote
from tinyclip.artifacts.remote import StoreUnavailable
from tinyclip.artifacts.store import ArtifactsStore

from tests.fault_proxy import Fault, FaultProxy
from tests.s3 import BUCKET

PART = 5 * 2**20
LARGE = 3 * PART
"""Bytes that are uploaded in parts, see `small_parts`."""
UPLOAD_LOST = (
    Fault("drop", methods=("POST",), path=r"uploadId", numbers=(1,)),
    Fault("error", methods=("POST", "DELETE"), path="uploadId", numbers=(2, 3), forward=False, status=404, code="NoSuchUpload"),
)
"""The response to the completion of an upload is lost; afterwards the store does not know the upload any more."""


@pytest.fixture
def store(faulty_s3: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactsStore:
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    store = ArtifactsStore(f"s3://{BUCKET}/{tmp_path.name}")
    assert not store.exists("a")  # its client exists now, which takes longer than the time limits here
    return store


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver upload in parts from two of them on, instead of from 100 MiB on."""
    pipe, put = S3FileSystem._pipe_file, S3FileSystem._put_file
    monkeypatch.setattr(pipe, "__defaults__", (PART, *pipe.__defaults__[1:]))
    monkeypatch.setattr(put, "__defaults__", (put.__defaults__[0], PART, *put.__defaults__[2:]))


LOST = [
    pytest.param(Fault("drop", methods=("PUT",), numbers=(1,)), id="dropped"),
    pytest.param(Fault("error", methods=("PUT",), numbers=(1,), status=503), id="503"),
    pytest.param(Fault("error", methods=("PUT",), numbers=(1,), status=500), id="500"),
]


class TestCreate:
    @pytest.mark.parametrize("fault", LOST)
    def test_recognises_its_own_file_after_a_lost_response(
        self, store: ArtifactsStore, faulty_s3: FaultProxy, fault: Fault
    ) -> None:
        faulty_s3.set(fault)

        assert store.create_bytes("a/b", b"mine")

        assert store.read_bytes("a/b") == b"mine"
        assert store.list("a") == ["b"]

    @pytest.mark.parametrize("fault", LOST)
    def test_recognises_another_writers_file_after_a_lost_response(
        self, store: ArtifactsStore, faulty_s3: FaultProxy, fault: Fault
    ) -> None:
        store.create_bytes("a/b", b"theirs")
        faulty_s3.set(fault)

        assert not store.create_bytes("a/b", b"mine")

        assert store.read_bytes("a/b") == b"theirs"

    @pytest.mark.usefixtures("small_parts")
    def test_recognises_its_own_large_file(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        data = bytes(LARGE)
        faulty_s3.set(*UPLOAD_LOST)

        assert store.create_bytes("a/large", data)

        assert [file.bytes for file in store.find("a")] == [LARGE]


class TestWrite:
    @pytest.mark.usefixtures("small_parts")
    def test_a_completed_upload_in_parts_is_repeated_if_its_response_is_lost(
        self, store: ArtifactsStore, faulty_s3: FaultProxy, tmp_path: Path
    ) -> None:
        (tmp_path / "large").write_bytes(bytes(LARGE))
        faulty_s3.set(*UPLOAD_LOST)

        store.put_file(tmp_path / "large", "a/large")

        assert [file.bytes for file in store.find("a")] == [LARGE]

    def test_an_outage_is_waited_for(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        faulty_s3.set(Fault("error", forward=False, numbers=tuple(range(1, 8))))

        store.write_bytes("a/b", b"1")

        assert store.read_bytes("a/b") == b"1"


class TestRead:
    def test_a_truncated_response_is_read_again(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        store.write_bytes("a/b", bytes(100_000))
        faulty_s3.set(Fault("truncate", methods=("GET",), numbers=(1, 2, 3)))

        assert store.read_bytes("a/b") == bytes(100_000)

    def test_existence_and_listings_follow_other_writers_at_once(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        other = ArtifactsStore(store.root)
        assert (store.exists("a/b"), store.list("a"), store.find("a")) == (False, [], [])

        other.write_bytes("a/b", b"1")
        assert (store.exists("a/b"), store.list("a"), len(store.find("a"))) == (True, ["b"], 1)

        other.remove("a")
        assert (store.exists("a/b"), store.list("a"), store.find("a")) == (False, [], [])


class TestOthers:
    def test_removal_and_copies_are_repeated(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        store.write_bytes("a/b", b"1")
        faulty_s3.set(Fault("drop", methods=("PUT", "POST"), numbers=(1, 3)))

        store.copy("a/b", "c/d")
        store.remove("a")

        assert store.read_bytes("c/d") == b"1"
        assert store.find("a") == []

    def test_a_removal_that_the_store_refuses_for_some_files_is_an_error(
        self, store: ArtifactsStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write_bytes("a/b", b"1")
        files, _ = store.filesystem
        monkeypatch.setattr(files, "rm", lambda path, recursive, **_: [])  # the driver ignores errors of single files

        with pytest.raises(StoreUnavailable, match=f"{store.root}/a"):
            store.remove("a")


class TestOptions:
    def test_the_users_settings_of_the_driver_win(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 60, "signature_version": "s3v4"}})

        files, _ = remote.open_filesystem("s3://bucket/a")

        assert (files.config_kwargs["read_timeout"], files.config_kwargs["signature_version"]) == (60, "s3v4")
        assert files.config_kwargs["connect_timeout"] == remote.CONNECT_SECONDS


class TestUnavailable:
    @pytest.fixture
    def limited(self, store: ArtifactsStore) -> ArtifactsStore:
        return ArtifactsStore(store.root, limit_s=0.5)

    @pytest.mark.parametrize("effect", ["hang", "error"])
    def test_a_store_that_does_not_answer_is_an_error_in_limited_time(
        self, limited: ArtifactsStore, faulty_s3: FaultProxy, effect: str
    ) -> None:
        faulty_s3.set(Fault(effect, forward=False))  # type: ignore[arg-type]

        for call in (
            lambda: limited.write_bytes("a/b", b"1"), lambda: limited.create_bytes("a/b", b"1"), lambda: limited.exists("a/b"),
            lambda: limited.read_bytes("a/b"), lambda: limited.list("a"), lambda: limited.find("a"), lambda: limited.remove("a"),
        ):  # fmt: skip
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match=limited.root):
                call()
            assert time.monotonic() - started < 2.5

    def test_a_partition_is_an_error_too(self, limited: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        faulty_s3.refuse()

        with pytest.raises(StoreUnavailable, match=limited.root):
            limited.read_bytes("a/b")

    def test_it_answers_again_after_the_outage(self, store: ArtifactsStore, faulty_s3: FaultProxy) -> None:
        limited = ArtifactsStore(store.root, limit_s=3.0)
        faulty_s3.set(Fault("hang", forward=False))
        with pytest.raises(StoreUnavailable):
            limited.write_bytes("a/b", b"1")
        faulty_s3.set()

        limited.write_bytes("a/b", b"2")

        assert limited.read_bytes("a/b") == b"2"

    def test_a_missing_file_and_a_missing_bucket_are_reported_at_once(self, store: ArtifactsStore) -> None:
        started = time.monotonic()

        with pytest.raises(FileNotFoundError):
            store.read_bytes("a/missing")
        with pytest.raises(FileNotFoundError):
            ArtifactsStore("s3://no-such-bucket/x").write_bytes("a", b"1")

        assert time.monotonic() - started < 5
