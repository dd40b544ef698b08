"""What processes that read shards import: they are many, and start often."""

import json
import subprocess
import sys

import pytest

NAMES = {
    "tinyclip_workers.training.dataset": "the index of a job",
    "tinyclip_workers.datasets.browsing": "a look into a data set",
    "tinyclip_workers.datasets.scan.tasks": "the scan of a shard",
    "tinyclip_workers.datasets.job": "the registration of a data set",
    "tinyclip_workers.reinforcing.merging": "the texts of a reinforcement",
    "tinyclip_workers.retrieval.job": "a change of an index",
}
WITHOUT_TORCH = ("tinyclip_workers.training.dataset", "tinyclip_workers.datasets.browsing")
SCRIPT = """
import importlib, json, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(json.dumps([module, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The modules in a process after each of these imports, one after the other, those without torch first."""
    command = [sys.executable, "-c", SCRIPT, *NAMES]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {module: set(names) for module, names in map(json.loads, printed.splitlines())}


@pytest.mark.parametrize("module", [pytest.param(module, id=name) for module, name in NAMES.items()])
def test_no_module_of_models_is_imported(module: str, loaded: dict[str, set[str]]) -> None:
    heavy = {"torch"} if module in WITHOUT_TORCH else {"torchvision"}

    assert not (heavy | {"open_clip", "transformers", "timm", "ray.train", "ray.serve"}) & loaded[module]
