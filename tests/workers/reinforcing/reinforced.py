"""A store with a registered data set, and reinforcements of it."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load
from tinyclip.artifacts.documents import ReinforcementDocument
from tinyclip.artifacts.paths import reinforcement_images
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers import jobs
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement

from tests.workers.registered import register, reinforcement_arguments, request_reinforcement

MAX_ACTORS = "tinyclip_workers.reinforcing.pool.MAX_ACTORS"
POST: dict[str, Any] = {"augmentations": 3, "augment": {"crop_scale": (0.5, 1.0), "color_jitter": 0.2, "horizontal_flip": 0.5}}


class Reinforced:
    """A data set and a request for a reinforcement of it."""

    def __init__(self, root: Path, shards: str, **post: Any) -> None:
        self.root, self.store = root, ArtifactsStore(str(root))
        self.version = register(self.store, shards, caption_key="json.captions", holdout=0.2)
        self.post = POST | post
        self.folder = request_reinforcement(self.store, **self.post)

    def run(self, attempt: int = 1, actors: int = 1) -> int:
        """`actors`: at most so many, each of which takes seconds to start."""
        request_reinforcement(self.store, attempt, **self.post)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MAX_ACTORS, actors)
            return jobs.main(reinforcement_arguments(self.root, attempt))

    def files(self) -> dict[str, bytes]:
        """Return the files of the result."""
        found = [file.path for file in self.store.find(self.folder)]
        kept = [path for path in found if "/attempts/" not in path and not path.endswith("/request.json")]
        return {path: self.store.read_bytes(path) for path in kept}

    def document(self) -> ReinforcementDocument:
        return StoredReinforcement.open(self.store, self.folder).document


def rows_of(reinforced: Reinforced, shard: int) -> list[int]:
    rows: list[int] = load(reinforced.store.read_bytes(reinforcement_images(reinforced.folder, shard)))["rows"].tolist()
    return rows
