"""Clusters of a teacher's image embeddings: the program and its file."""

from pathlib import Path

import pytest
import torch
from tinyclip.schemas import JobSpec
from tinyclip_workers.data.errors import Skipped
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.evaluation.embedding import embed_images
from tinyclip_workers.model.files.sources import load_teacher
from tinyclip_workers.training.clusters import ClustersError, load_clusters, make_clusters, read_clusters_header, save_clusters

from tests.workers.plan_specs import spec, write_data
from tests.workers.shards import COLORS


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    return JobSpec.model_validate(spec(write_data(tmp_path_factory.mktemp("clusters"))))


def test_images_of_one_color_are_one_cluster(job: JobSpec, tmp_path: Path) -> None:
    """The images are squares of four colors in many shades."""
    out = str(tmp_path / "clusters.safetensors")

    make_clusters(job, out, clusters=len(COLORS))

    clusters_KE = load_clusters(out)
    assert clusters_KE.shape == (4, 16)
    torch.testing.assert_close(clusters_KE.norm(dim=1), torch.ones(4))
    assert job.teacher is not None
    shards = [str(job.data.train.shards).replace("{0..1}", "0")]
    samples = ((sample, sample["cls"].decode()) for sample in read_shards(shards, Skipped()))
    with torch.no_grad():
        found = embed_images({"it": load_teacher(job.teacher)}, samples, ["png"], lambda *_: None)
    nearest = (found.images_NE["it"] @ clusters_KE.T).argmax(dim=1).tolist()
    pairs = set(zip(found.values, nearest, strict=True))
    assert len(found.values) == 40
    assert len(pairs) <= 5  # one of the four may fall into two


def test_the_same_seed_gives_the_same_clusters(job: JobSpec, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_clusters(job, str(tmp_path / name), clusters=3, seed=7)

    assert torch.equal(load_clusters(str(tmp_path / "a")), load_clusters(str(tmp_path / "b")))
    metadata = read_clusters_header(str(tmp_path / "a")).metadata
    assert metadata["teacher"] == "teacher"
    assert metadata["seed"] == "7"
    assert 48 <= int(metadata["images"]) < 64  # of 64, a tenth is held out


def test_more_clusters_than_images_are_refused(job: JobSpec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="20 images are too few for 30 clusters"):
        make_clusters(job, str(tmp_path / "out"), clusters=30, images=20)

    assert not (tmp_path / "out").exists()


def test_a_kill_while_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "clusters.safetensors")
    save_clusters(out, torch.eye(3), {})
    before = Path(out).read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_clusters(out, torch.eye(5), {})

    assert Path(out).read_bytes() == before


def test_a_relative_path_and_any_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("clusters.safetensors", "memory://clusters/c.safetensors"):
        save_clusters(uri, 2 * torch.eye(3), {})

        assert torch.equal(load_clusters(uri), torch.eye(3))
    with pytest.raises(ClustersError, match="there is no file memory://clusters/d"):
        load_clusters("memory://clusters/d")
