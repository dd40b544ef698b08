"""The service's own files in the engine: no address of a user opens them, and `registry:` models are found in them."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tinyclip.addresses import ARTIFACTS_ROOT, SERVICE_PLACES
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.importing.source_files import ImportRefused, read_source
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.sources import check_teacher, load_teacher
from tinyclip_workers.plan.shards import inspect_shards
from tinyclip_workers.runtime import addresses
from tinyclip_workers.runtime.addresses import AddressRefused, ServiceAddress, address_in
from tinyclip_workers.runtime.filesystems import open_filesystem, open_own_store, open_store
from tinyclip_workers.training.clusters import ClustersError, read_clusters_header

from tests.s3 import BUCKET, bucket_files, s3_server
from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.shards import write_shard


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts of a service, with a version of a model of another project."""
    root = tmp_path / "artifacts"
    write_folder(root / "models" / "victim" / "1", tiny_model(), tiny_layout())
    (root / "jobs").mkdir()
    write_shard(root / "jobs" / "0.tar", [{"__key__": "one", "txt": "a cat"}])
    monkeypatch.setenv(ARTIFACTS_ROOT, str(root))
    monkeypatch.setenv(SERVICE_PLACES, json.dumps([str(root)]))
    return root


def test_a_file_that_the_server_has_stored_for_an_import_is_read(artifacts: Path, tmp_path: Path) -> None:
    upload = artifacts / "upload"
    upload.write_bytes((artifacts / "models" / "victim" / "1" / "open_clip_model.safetensors").read_bytes())

    source = read_source(str(upload), tmp_path / "scratch", upload_name="mine.safetensors", limit=1 << 30, pointer="/file")

    assert (source.file, source.bytes) == ("mine.safetensors", upload.stat().st_size)


@pytest.fixture(params=["direct", "link", "slashes", "file"])
def spelled(request: pytest.FixtureRequest, artifacts: Path) -> Callable[[str], str]:
    """A function that spells the address of a file of the artifacts."""
    (artifacts.parent / "link").symlink_to(artifacts)
    root = {"direct": artifacts, "link": artifacts.parent / "link", "slashes": f"/{artifacts}", "file": f"file://{artifacts}"}
    return lambda path: f"{root[request.param]}/{path}"


def test_no_reader_opens_them(spelled: Callable[[str], str], tmp_path: Path) -> None:
    model = spelled("models/victim/1")

    for open_one in (open_filesystem, open_store):
        with pytest.raises(AddressRefused, match="belongs to the service"):
            open_one(model)
    with pytest.raises(TeacherError, match="belongs to the service"):
        check_teacher(TeacherSpec(model=f"local-dir:{model}"))
    with pytest.raises(ImportRefused, match="belongs to the service"):
        read_source(model, tmp_path / "scratch", upload_name=None, limit=1 << 30, pointer="/source")
    with pytest.raises(ClustersError, match="belongs to the service"):
        read_clusters_header(f"{model}/open_clip_model.safetensors")
    [(_, problem)] = inspect_shards(spelled("jobs/0.tar")).problems
    assert "belongs to the service" in problem


@pytest.mark.parametrize("pattern", ["*/models/*/1/*", "*/jobs/*.tar", "{x,artifacts}/jobs/*.tar"])
def test_a_pattern_that_matches_them_is_refused_without_their_names(artifacts: Path, pattern: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        expand_shards(f"{artifacts.parent}/{pattern}")

    assert "victim" not in str(refused.value)
    assert "0.tar" not in str(refused.value)


@pytest.mark.parametrize("address", ["file:{path}", "~/artifacts/models", "{up}/artifacts/models"])
def test_the_place_that_a_driver_opens_counts(artifacts: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HOME", str(artifacts.parent))
    monkeypatch.chdir(artifacts / "models")

    with pytest.raises(AddressRefused):
        open_filesystem(address.format(path=artifacts / "jobs" / "0.tar", up="../../../" + artifacts.parent.name))


def test_another_projects_model_in_a_bucket_is_neither_imported_nor_read(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        bucket_files(environment).put(str(artifacts), f"{BUCKET}/artifacts", recursive=True)
        root = f"s3://{BUCKET}/artifacts"
        spellings = (root, f"s3a://{BUCKET}/artifacts", f"s3:///{BUCKET}/artifacts", f"s3://{BUCKET}//artifacts")
        stolen = open_store(f"{root}/models/victim/1").list("")  # what each token with write could read
        monkeypatch.setenv(SERVICE_PLACES, json.dumps([root]))
        monkeypatch.setenv(ARTIFACTS_ROOT, root)

        for spelled in spellings:
            with pytest.raises((ImportRefused, AddressRefused)):
                read_source(f"{spelled}/models/victim/1", tmp_path / "s", upload_name=None, limit=1 << 30, pointer="/source")
            with pytest.raises(TeacherError):
                check_teacher(TeacherSpec(model=f"local-dir:{spelled}/models/victim/1"))
        with pytest.raises(AddressRefused, match="matches files of the service"):
            expand_shards(f"s3://{BUCKET}/*/jobs/*.tar")
        assert check_teacher(TeacherSpec(model="registry:victim@1")).layout == tiny_layout()

    assert "open_clip_model.safetensors" in stolen


def test_a_registered_model_is_found_by_its_pinned_version(artifacts: Path) -> None:
    spec = TeacherSpec(model="registry:victim@1")

    assert check_teacher(spec).layout == tiny_layout()
    assert load_teacher(spec).layout == tiny_layout()


@pytest.mark.parametrize(
    "model", ["registry:victim", "registry:victim@best", "registry:../jobs@1", "registry:a/../../x@1", "registry:victim@1/../2"]
)
def test_a_reference_that_no_server_has_pinned_is_refused(artifacts: Path, model: str) -> None:
    with pytest.raises(TeacherError, match="only the server knows its registry"):
        check_teacher(TeacherSpec(model=model))


def test_the_service_opens_its_own_store(artifacts: Path) -> None:
    assert open_own_store(str(artifacts)).list("models") == ["victim"]


def test_an_address_made_of_the_services_own_one_is_a_users_again() -> None:
    own = ServiceAddress("/artifacts")

    assert isinstance(address_in(own, "x"), ServiceAddress)
    assert not isinstance(address_in("/artifacts", "x"), ServiceAddress)
    assert not isinstance(f"{own}/x", ServiceAddress)
    assert not isinstance(own + "/x", ServiceAddress)


def test_few_modules_choose_addresses_for_the_service() -> None:
    """A new one is reviewed: what it wraps must not come from a user."""
    package = Path(addresses.__file__).parents[1]

    choosing = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("ServiceAddress", "open_own_store")
    }

    assert choosing == {
        "runtime/addresses.py", "runtime/filesystems.py", "runtime/attempt.py", "jobs.py",
        "model/files/sources.py", "importing/source_files.py", "importing/convert.py", "exporting/job.py",
        "engines/load.py", "engines/cache.py", "engines/calibration.py", "versions/golden.py", "finalists/versions.py",
        "serving/replica/store_calls.py", "training/dataset.py",
        "data/index/dataset_index.py", "data/index/values.py", "data/reinforcement/stored.py",
        "datasets/browsing.py", "datasets/scan/tasks.py", "datasets/images/task_images.py", "datasets/teacher_sample.py",
        "plan/dataset.py", "plan/reinforcement.py",
        "retrieval/viewing.py",
        "reinforcing/actor.py", "reinforcing/exporting.py", "reinforcing/merging.py", "exporting/formats/tinyclip.py",
    }
