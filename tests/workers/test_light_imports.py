"""What processes that read shards import: they are many, and start often."""

import json
import subprocess
import sys

import pytest


def loaded_modules(module: str) -> set[str]:
    script = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(json.loads(printed))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        pytest.param("tinyclip_workers.training.dataset", {"torch", "open_clip"}, id="the index of a job"),
        pytest.param("tinyclip_workers.datasets.scan.tasks", {"torchvision", "open_clip"}, id="the scan of a shard"),
        pytest.param("tinyclip_workers.datasets.job", {"torchvision", "open_clip"}, id="the registration of a data set"),
        pytest.param("tinyclip_workers.reinforcing.merging", {"torchvision", "open_clip"}, id="the texts of a reinforcement"),
        pytest.param("tinyclip_workers.retrieval.job", {"torchvision", "open_clip"}, id="a change of an index"),
        pytest.param("tinyclip_workers.datasets.browsing", {"torch", "open_clip"}, id="a look into a data set"),
    ],
)
def test_no_module_of_models_is_imported(module: str, heavy: set[str]) -> None:
    assert not (heavy | {"transformers", "timm", "ray.train", "ray.serve"}) & loaded_modules(module)
