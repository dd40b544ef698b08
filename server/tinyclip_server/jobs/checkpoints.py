"""A job's checkpoints, found in its folder of the artifacts store."""

from collections import defaultdict
from collections.abc import Iterable

from tinyclip.artifacts.paths import MANIFEST, parse_checkpoint_file
from tinyclip.artifacts.store import StoredFile
from tinyclip.schemas import Checkpoint


def committed(files: Iterable[StoredFile]) -> list[Checkpoint]:
    """Return the checkpoints with a manifest, by stage and step."""
    folders: dict[tuple[int, int, int, str], dict[str, StoredFile]] = defaultdict(dict)
    for file in files:
        if (found := parse_checkpoint_file(file.path)) is not None:
            folders[found.stage, found.step, found.attempt, found.folder][found.name] = file
    return [
        Checkpoint(
            stage=stage, step=step, attempt=attempt, path=path, created_at=held[MANIFEST].modified_at,
            bytes=sum(file.bytes for name, file in held.items() if name != MANIFEST),
        )
        for (stage, step, attempt, path), held in sorted(folders.items())
        if MANIFEST in held
    ]
