"""The whole service with its artifacts on S3: a job, its model, a deployment and an index, nothing of it on the disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyclip import Client

from tests.e2e.service import Service
from tests.e2e.shapes import write_world
from tests.s3 import BUCKET, bucket_files, s3_server

pytestmark = [pytest.mark.timeout(900), pytest.mark.ray, pytest.mark.long]

SHORT = ("--set", "stages.0.train.steps=10", "--set", "stages.1.train.steps=10")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """With the data set on S3 too."""
    with s3_server() as environment:
        write_world(tmp_path)
        for folder in ("train", "val"):
            bucket_files(environment).put(f"{tmp_path}/{folder}/*.tar", f"{BUCKET}/{folder}/")
        service = Service(tmp_path, {**environment, "TINYCLIP_ARTIFACTS": f"s3://{BUCKET}/artifacts"})
        service.start()
        try:
            yield service
            assert service.stop() == 0
        finally:
            service.end_everything()


def test_from_spec_to_answers_without_a_file_of_its_own(service: Service, tmp_path: Path) -> None:
    spec_file = tmp_path / "shapes.yaml"
    spec_file.write_text(spec_file.read_text().replace('"train/', f'"s3://{BUCKET}/train/').replace('"val/', f'"s3://{BUCKET}/val/'))

    submitted = service.client("jobs", "submit", spec_file, "--watch", *SHORT)
    pulled = service.client("models", "pull", "shapes@1", tmp_path / "pulled")
    deployed = service.client("deployments", "create", "shapes", "--model", "shapes@1")
    indexed = service.client("indexes", "create", "gallery", "--model", "shapes@1", "--shards", f"s3://{BUCKET}/val/*.tar")
    with Client(service.url) as client:
        embedded = client.deployments.open("shapes").embed_texts(["a blue circle"])
        hits = client.deployments.open("shapes").search("gallery", text="a blue circle", top_k=3).hits

    for ran in (submitted, pulled, deployed, indexed):
        assert ran.code == 0, ran.out + ran.err
    assert (tmp_path / "pulled" / "open_clip_model.safetensors").stat().st_size > 0
    assert len(embedded[0]) == 16
    assert len(hits) == 3
    assert not service.artifacts.exists()
