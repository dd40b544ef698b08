"""The artifacts store that the tests' deployments share; each deployment has a name or a store of its own where it writes."""

import shutil
from pathlib import Path

import pytest

from tests.workers.students import build_index, encoded, random_image, write_shard


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A store with the version student@1 and two indexes of five images, `foreign` of another model."""
    root = tmp_path_factory.mktemp("artifacts")
    shutil.copytree(folder, root / "models/student/1")
    samples = {f"p{i}": {"png": encoded(random_image(i)), "txt": f"picture {i}".encode()} for i in range(5)}
    shard = write_shard(root / "shard.tar", samples)
    for name, model in (("gallery", "student@1"), ("foreign", "other@7")):
        build_index(root, name, model, folder, shard)
    return root
