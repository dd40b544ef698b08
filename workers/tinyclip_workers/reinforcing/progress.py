"""The state of an incomplete reinforcement in the store: its plan, and what is done.

    work/plan.json            what the result depends on; files of another plan are removed
    work/texts/<shard>        the texts of a shard, before those that other shards have as well are removed
    work/shards/<shard>.json  written last for a shard: its counts
    work/merged/<part>        texts that several shards have, for a range of hashes
    work/groups/<group>.json  written last for a group of shards whose texts are final: their counts

`work` is removed after the document is written.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from tinyclip.artifacts.paths import reinforcement_work
from tinyclip.artifacts.store import ArtifactsStore

_NUMBERED = re.compile(r"(\d+)\.json")


@dataclass(frozen=True)
class ShardCounts:
    """The counts of an encoded shard."""

    samples: int
    skipped: int
    texts: int
    bytes: int
    """Of its file of images."""
    examples: list[str] = field(default_factory=list)
    """Of skipped samples."""


def begin(store: ArtifactsStore, folder: str, plan: dict[str, Any], results: list[str]) -> bool:
    """Write the plan; return whether files of the same plan exist, which are continued. Those of another plan are removed.

    `results`: folders outside `work` that depend on the plan.
    """
    path, data = f"{reinforcement_work(folder)}/plan.json", json.dumps(plan, sort_keys=True).encode()
    if store.read_if_exists(path) == data:
        return True
    for old in (reinforcement_work(folder), *results):
        store.remove(old)
    store.write_bytes(path, data)
    return False


def unmerged_texts(folder: str, shard: int) -> str:
    return f"{reinforcement_work(folder)}/texts/{shard:06d}.safetensors"


def merged_part(folder: str, part: int) -> str:
    return f"{reinforcement_work(folder)}/merged/{part:03d}.safetensors"


def write_counts(store: ArtifactsStore, folder: str, shard: int, counts: ShardCounts) -> None:
    store.write_bytes(f"{_shards(folder)}/{shard:06d}.json", json.dumps(asdict(counts)).encode())


def read_counts(store: ArtifactsStore, folder: str, shard: int) -> ShardCounts:
    return ShardCounts(**json.loads(store.read_bytes(f"{_shards(folder)}/{shard:06d}.json")))


def encoded_shards(store: ArtifactsStore, folder: str) -> set[int]:
    """Return the shards that are encoded."""
    return _numbers(store, _shards(folder))


def write_group(store: ArtifactsStore, folder: str, group: int, counts: dict[str, int]) -> None:
    store.write_bytes(f"{_groups(folder)}/{group:06d}.json", json.dumps(counts).encode())


def read_group(store: ArtifactsStore, folder: str, group: int) -> dict[str, int]:
    counts: dict[str, int] = json.loads(store.read_bytes(f"{_groups(folder)}/{group:06d}.json"))
    return counts


def final_groups(store: ArtifactsStore, folder: str) -> set[int]:
    """Return the groups of shards whose texts are final."""
    return _numbers(store, _groups(folder))


def _shards(folder: str) -> str:
    return f"{reinforcement_work(folder)}/shards"


def _groups(folder: str) -> str:
    return f"{reinforcement_work(folder)}/groups"


def _numbers(store: ArtifactsStore, folder: str) -> set[int]:
    return {int(found[1]) for name in store.list(folder) if (found := _NUMBERED.fullmatch(name))}
