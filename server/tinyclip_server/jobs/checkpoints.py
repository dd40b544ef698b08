"""A job's checkpoints as its folder in the artifacts store shows them."""

import re
from collections import defaultdict
from collections.abc import Iterable

from tinyclip.schemas import Checkpoint

from tinyclip_server.backends.artifacts import StoredFile

PLACE = re.compile(r"(jobs/[^/]+/stages/(\d+)-[^/]+/a(\d+)/step-(\d+))/([^/]+)")
"""As by `stage_checkpoints` of the schemas, and below it the step's files."""
MANIFEST = "manifest.json"
"""Written last: a checkpoint without it is not one."""


def committed(files: Iterable[StoredFile]) -> list[Checkpoint]:
    """Those with a manifest, by stage and step."""
    folders: dict[tuple[int, int, int, str], dict[str, StoredFile]] = defaultdict(dict)
    for file in files:
        if place := PLACE.fullmatch(file.path):
            path, stage, attempt, step, name = place.groups()
            folders[int(stage), int(step), int(attempt), path][name] = file
    return [
        Checkpoint(
            stage=stage, step=step, attempt=attempt, path=path, created_at=held[MANIFEST].modified_at,
            bytes=sum(file.bytes for name, file in held.items() if name != MANIFEST),
        )
        for (stage, step, attempt, path), held in sorted(folders.items())
        if MANIFEST in held
    ]
