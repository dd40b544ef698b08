"""`kill -9` in a build and in an update: an index is the old one or the new one, and what was done is not done again."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tinyclip_workers.engines.protocol import Engine
from tinyclip_workers.retrieval import building, parts

from tests.workers.index_jobs import arguments, ask, ask_updates, current, events, generation, run
from tests.workers.students import encoded, random_image, square_of, write_shard

OLD, NEW = 20, 200


@pytest.fixture
def root(tmp_path: Path, folder: Path) -> Path:
    """A store with an index of 20 pictures."""
    images = {f"old{i}": {"png": encoded(random_image(i))} for i in range(OLD)}
    ask(tmp_path, folder, str(write_shard(tmp_path / "old.tar", images)))
    assert run(tmp_path) == 0
    return tmp_path


def kill_once(process: "subprocess.Popen[bytes]", happened: Callable[[], bool]) -> None:
    """SIGKILL as soon as something has happened, which must be before the process ends."""
    deadline = time.monotonic() + 120
    while not happened() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


SMALL_PARTS = "import sys; from tinyclip_workers import jobs; from tinyclip_workers.retrieval import parts; parts.ROWS = 64; "
"""A build's process that writes a part every 64 items."""


def test_a_killed_build_goes_on_where_it_was(root: Path, folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"k{i:03}": {"png": encoded(random_image(i, (300, 300)))} for i in range(NEW)} | {"k000b": {"png": b"no picture"}}
    keys = sorted(many)
    shards = [write_shard(root / f"many-{i}.tar", {key: many[key] for key in keys[i::2]}) for i in range(2)]
    ask(root, folder, str(root / "many-{0..1}.tar"), build=2)
    command = SMALL_PARTS + f"sys.exit(jobs.main({arguments(root, 'b2')!r}))"

    process = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    kill_once(process, (root / "indexes/gallery/builds/2/parts/000002.npz").exists)

    assert generation(root).count == OLD
    assert current(root).nearest(np.ones(24, np.float32), 100).hits[0].id.startswith("old")
    kept = sum(len(items) for number in (1, 2) for items in [_items(root, number)])
    encoded_again: list[int] = []
    embed = type(engine).encode_image
    monkeypatch.setattr(type(engine), "encode_image", lambda self, batch: encoded_again.append(len(batch)) or embed(self, batch))
    assert run(root, 2) == 0
    assert sum(encoded_again) <= NEW - kept
    done = generation(root)
    assert (done.count, done.skipped_samples, done.build) == (NEW, 1, 2)
    found = current(root).nearest(np.ones(24, np.float32), 1000).hits
    assert {hit.id for hit in found} == set(many) - {"k000b"}
    for seed in (0, 63, 64, 199):
        query = engine.encode_image(square_of(random_image(seed, (300, 300)))[None])[0]
        assert current(root).nearest(query, 1).hits[0].id == f"k{seed:03}"
    assert len(shards) == 2


def _items(root: Path, number: int) -> list[object]:
    part = np.load(root / f"indexes/gallery/builds/2/parts/{number:06d}.npz")
    return list(json.loads(part["document"].tobytes())["items"])


def test_other_shards_under_the_same_names_are_encoded_anew(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_shard(root / "new.tar", {f"a{i}": {"png": encoded(random_image(i))} for i in range(5)})
    ask(root, folder, str(shard), build=2)
    monkeypatch.setattr(building, "_write_segment", lambda *_: 1 / 0)
    assert run(root, 2) == 1
    monkeypatch.undo()
    write_shard(shard, {f"b{i}": {"png": encoded(random_image(i))} for i in range(6)})

    assert run(root, 2) == 0

    assert {hit.id for hit in current(root).nearest(np.ones(24, np.float32), 100).hits} == {f"b{i}" for i in range(6)}


def test_two_processes_of_one_build_do_not_mix(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(root / "new.tar", {f"a{i}": {"png": encoded(random_image(i))} for i in range(5)})
    ask(root, folder, str(shard), build=2)
    monkeypatch.setattr(parts.EncodedParts, "state", _after_another_process_wrote(parts.EncodedParts.state))

    assert run(root, 2) == 0

    assert generation(root).build == 1
    assert [event["type"] for event in events(root, 2) if event["type"].startswith("index.f")] == []


State = Callable[[parts.EncodedParts], parts.BuildState]


def _after_another_process_wrote(state: State) -> State:
    def conflicting(mine: parts.EncodedParts) -> parts.BuildState:
        mine._store.create_bytes(mine._path(1), b"theirs")
        return state(mine)

    return conflicting


HELD = {
    "update": "updating.next_generation = lambda *_: hold()",
    "segment": "updating.commit = lambda *_: hold()",
    "generation": "updating.commit = lambda *given, real=updating.commit: (real(*given), hold())",
}
"""By what has happened: where the process then stands still, so that it is killed just there, however fast it is."""
HOLD = """
import pathlib, sys, time
from tinyclip_workers import jobs
from tinyclip_workers.retrieval import updating

def hold():
    pathlib.Path(sys.argv.pop(1)).touch()
    time.sleep(600)
"""


@pytest.mark.parametrize("after", list(HELD))
def test_a_killed_update_is_applied_once(root: Path, folder: Path, engine: Engine, after: str) -> None:
    """Killed when it has begun to read, when the new segment is being written, and when the generation is there but untold."""
    image = base64.b64encode(encoded(random_image(7, (400, 400)))).decode()
    items = [{"id": f"new{i}", "image": image, "metadata": {"i": i}} for i in range(150)] + [{"id": "old3", "text": "a cat"}]
    ask_updates(root, folder, {1: {"items": items, "removed": ["old4"]}, 2: {"items": [], "removed": ["new0"]}})
    index, held = root / "indexes/gallery", root / "held"
    code = f"{HOLD}\n{HELD[after]}\nsys.exit(jobs.main(sys.argv[2:]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(held), *arguments(root, "u2")], stderr=subprocess.DEVNULL)
    kill_once(process, held.exists)

    killed_at = generation(root)
    assert (killed_at.count, killed_at.applied) == ((OLD + 148, 2) if after == "generation" else (OLD, 0))
    hits = current(root).nearest(np.ones(24, np.float32), 1000).hits
    assert len({hit.id for hit in hits}) == len(hits) == killed_at.count
    assert run(root, "u2") == 0
    done = generation(root)
    assert (done.number, done.count, done.applied) == (2, OLD + 148, 2)
    hits = current(root).nearest(engine.encode_text(["a cat"])[0], 1000).hits
    assert len({hit.id for hit in hits}) == len(hits) == OLD + 148
    assert hits[0].id == "old3"
    assert {"old4", "new0"} & {hit.id for hit in hits} == set()
    assert events(root, "u2")[-1]["data"]["applied"] == 2
    named = {segment.id for segment in done.segments}
    assert {path.name for path in (index / "segments").iterdir()} == named
