"""Measure the cost of a search: `python bench/search.py [--rows 100000] [--queries 500] [--huge 1000000] [--json FILE]`.

Random vectors near a subspace of 48 of their 512 dimensions, similar to embeddings, become an index in files. Each query runs in
our reader (hits with ids and metadata) and directly in hnswlib with the same graph (row numbers only), alternately, so that other
load on the machine affects both equally. Times are CPU times of one thread. The results also contain the time to open the index,
its memory, and recall@10 against exact search.

`--huge ROWS` creates a second index and opens it in a fresh process, to measure opening time and memory of a large index. Linking
it would take hours, and opening does not read the links. Its graph is therefore a file in hnswlib's format that reserves space
for all links, with a sixteenth of the rows on a second level, but contains none. It cannot be searched.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.filters import parse_filter
from tinyclip_workers.retrieval import graph as graphs
from tinyclip_workers.retrieval.commits import commit, newest
from tinyclip_workers.retrieval.generations import GRAPH, VECTORS, Generation
from tinyclip_workers.retrieval.reader import FilesReader, open_index
from tinyclip_workers.retrieval.recall import exact_rows
from tinyclip_workers.retrieval.segment_writer import new_segment

EMBED_DIM, LATENT, NOISE, CHUNK = 512, 48, 0.3, 10_000
FILTERS = {"50%": {"half": 0}, "10%": {"tenth": 3}, "1%": {"hundredth": 42}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--huge", type=int, default=0, help="rows of a second index; 0: none")
    parser.add_argument("--folder", type=Path, default=None, help="folder that keeps the indexes; by default a temporary one")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--open", action="store_true", help="only open the index in --folder, and print time and memory")
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(measure_opening(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        result = measure(folder / "small", arguments.rows, arguments.queries)
        write_result(result, arguments.json)
        if arguments.huge:
            build(folder / "huge", arguments.huge, linked=False)
            sizes = {path.name: path.stat().st_size for path in (folder / "huge").rglob("*") if path.is_file()}
            result["huge"] = {"rows": arguments.huge, "file_bytes": sizes, **open_in_fresh_process(folder / "huge")}
            write_result(result, arguments.json)


def write_result(result: dict[str, Any], path: Path | None) -> None:
    text = json.dumps(result, indent=1)
    print(text, flush=True)
    if path is not None:
        path.write_text(text + "\n")


def measure(folder: Path, rows: int, count: int) -> dict[str, Any]:
    build_cpu_s = build(folder, rows)
    reader = open_index(*store_and_generation(folder))
    segment = reader.generation.segments[0]
    direct = hnswlib.Index(space="ip", dim=EMBED_DIM)
    direct.load_index(str(folder / f"indexes/gallery/segments/{segment.id}/{GRAPH}"))
    direct.set_ef(segment.ef)
    queries_QE = vectors(count, seed=rows + 1)
    truth = exact_rows(reader.segments[0].vectors.vectors_NE, queries_QE, 10)
    searches: dict[str, Callable[[Any], Any]] = {
        "ours": lambda query: reader.nearest(query, 10),
        "hnswlib": lambda query: direct.knn_query(query, k=10, num_threads=1),
        "exact": exact_search(reader),
        **{f"filter {share}": filtered_search(reader, filter) for share, filter in FILTERS.items()},
    }
    times = time_alternately(searches, queries_QE)
    ratios = [ours / theirs for ours, theirs in zip(times["ours"], times["hnswlib"], strict=True)]
    found = [[int(hit.id) for hit in reader.nearest(query, 10).hits] for query in queries_QE]
    return {
        "rows": rows,
        "dimensions": EMBED_DIM,
        "ef": segment.ef,
        "build_cpu_s": build_cpu_s,
        "recall_at_10": mean_share(found, truth),
        "recall_on_the_builds_sample": segment.recall,
        "ms_of_the_processor": {name: 1000 * statistics.mean(taken) for name, taken in times.items()},
        "ours_to_hnswlib": {"of_means": statistics.mean(times["ours"]) / statistics.mean(times["hnswlib"]),
                            "median": statistics.median(ratios)},
        "filters": {share: measure_filter(reader, filter, queries_QE[:100]) for share, filter in FILTERS.items()},
        **open_in_fresh_process(folder),
    }  # fmt: skip


def time_alternately(searches: dict[str, Callable[[Any], Any]], queries_QE: Any) -> dict[str, list[float]]:
    """Return the CPU seconds of each query, by search; slow searches get only the first queries."""
    for search in searches.values():
        search(queries_QE[0])
    times: dict[str, list[float]] = {name: [] for name in searches}
    for place, query in enumerate(queries_QE):
        for name, search in searches.items():
            if name in ("ours", "hnswlib") or place < 100:
                start = time.process_time()
                search(query)
                times[name].append(time.process_time() - start)
    return times


def exact_search(reader: FilesReader) -> Callable[[Any], Any]:
    vectors_NE = reader.segments[0].vectors.vectors_NE
    return lambda query: np.argpartition(-(vectors_NE @ query), 10)[:10]


def filtered_search(reader: FilesReader, filter: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda query: reader.nearest(query, 10, parse_filter(filter))


def measure_filter(reader: FilesReader, filter: dict[str, Any], queries_QE: Any) -> dict[str, Any]:
    conditions = parse_filter(filter)
    rows = np.flatnonzero(reader.segments[0].allowed(conditions))
    truth = rows[exact_rows(np.ascontiguousarray(reader.segments[0].vectors.vectors_NE[rows]), queries_QE, 10)]
    found = [reader.nearest(query, 10, conditions) for query in queries_QE]
    recall = mean_share([[int(hit.id) for hit in one.hits] for one in found], truth)
    return {"rows": len(rows), "kind": found[0].kind, "recall_at_10": recall}


def mean_share(found: list[list[int]], truth: Any) -> float:
    return float(np.mean([len(np.intersect1d(rows, right)) / len(right) for rows, right in zip(found, truth, strict=True)]))


def vectors(count: int, seed: int) -> Any:
    """Return (count, EMBED_DIM) vectors of length 1, from the same distribution for every seed."""
    chance = np.random.default_rng(seed)
    basis = np.random.default_rng(0).standard_normal((LATENT, EMBED_DIM), np.float32) / np.sqrt(LATENT)
    rows = chance.standard_normal((count, LATENT), np.float32) @ basis
    rows += NOISE * chance.standard_normal((count, EMBED_DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(folder: Path, rows: int, *, linked: bool = True) -> float:
    """Build an index with a graph unless it exists; return the CPU seconds that the build took."""
    took = folder / "took.json"
    if took.exists():
        return float(took.read_text())
    store, begun = ArtifactsStore(str(folder)), time.process_time()
    with new_segment(store, "gallery", EMBED_DIM) as segment:
        for start in range(0, rows, CHUNK):
            items = [(str(i), item_metadata(i)) for i in range(start, min(rows, start + CHUNK))]
            segment.add(vectors(len(items), seed=start + 1), items)
        info = segment.finish(graph=linked)
    if not linked:
        info = info.model_copy(update={"kind": "hnsw", "ef": 64})
        write_unlinked(folder / f"indexes/gallery/segments/{info.id}")
    generation = Generation(
        name="gallery", number=1, nonce="bench", build=1, model="bench@1", embed_dim=EMBED_DIM, count=rows, kind="hnsw",
        segments=[info],
    )  # fmt: skip
    assert commit(store, generation)
    took.write_text(f"{time.process_time() - begun:.1f}")
    return float(took.read_text())


def write_unlinked(folder: Path) -> None:
    """Write the file of a graph in the format of hnswlib 0.8, without links."""
    vectors_NE = np.load(folder / VECTORS, mmap_mode="r")
    count, links = len(vectors_NE), graphs.LINKS
    room = 4 + 2 * links * 4
    row = np.dtype([("links", np.uint8, room), ("vector", "<f4", vectors_NE.shape[1]), ("label", "<u8")])
    sizes = [0, count, count, row.itemsize, room + 4 * vectors_NE.shape[1], room]
    high = np.random.default_rng(0).random(count) < 1 / links
    high[0] = True
    above = (4 + links * 4).to_bytes(4, "little") + bytes(4 + links * 4)
    with open(folder / GRAPH, "wb") as file:
        file.write(np.array(sizes, "<u8").tobytes() + np.array([1, 0], "<i4").tobytes())
        file.write(np.array([links, 2 * links, links], "<u8").tobytes() + np.array([1 / np.log(links)], "<f8").tobytes())
        file.write(np.array([graphs.BUILD_WIDTH], "<u8").tobytes())
        for start in range(0, count, CHUNK):
            rows = np.zeros(min(CHUNK, count - start), row)
            rows["vector"] = vectors_NE[start : start + CHUNK]
            rows["label"] = np.arange(start, start + len(rows))
            file.write(rows.tobytes())
        for is_high in high.tolist():
            file.write(above if is_high else bytes(4))


def item_metadata(i: int) -> dict[str, Any]:
    shard = f"/data/gallery/{i // 10_000:06d}.tar"
    return {"key": f"{i:09d}", "shard": shard, "caption": f"picture {i}", "half": i % 2, "tenth": i % 10, "hundredth": i % 100}


def store_and_generation(folder: Path) -> tuple[ArtifactsStore, Generation]:
    store = ArtifactsStore(str(folder))
    generation = newest(store, "gallery")
    assert generation is not None
    return store, generation


def open_in_fresh_process(folder: Path) -> dict[str, float]:
    answer = subprocess.run([sys.executable, __file__, "--open", "--folder", str(folder)], check=True, capture_output=True)
    result: dict[str, float] = json.loads(answer.stdout)
    return result


def measure_opening(folder: Path) -> dict[str, float]:
    """Return the wall time and CPU time of opening, and the memory before and after."""
    store, generation = store_and_generation(folder)
    before, clock, cpu = memory_mb(), time.perf_counter(), time.process_time()
    reader = open_index(store, generation)
    took = {"open_s": time.perf_counter() - clock, "open_cpu_s": time.process_time() - cpu}
    assert reader.segments[0].graph is not None
    return {**took, "memory_before_mb": before, "memory_after_mb": memory_mb()}


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
