"""Compatible, shorter and smaller embeddings: `python bench/embeddings.py [--seeds 0 1 2] [--students FOLDER] [--threads 2]`.

Trains `examples/emoji/half.yaml` with nested embeddings (32, 64, 128 and 256 numbers), stage by stage in this process
(`training.py`), and searches the style that training never sees:

- the student's texts search the teacher's images, and the teacher's texts the student's;
- each of these, and the student alone, at every size, and in int8 and binary codes;
- bytes of an image's vector, and CPU time of a search among 100,000 vectors: the images' with noise.

R@10 is that of texts which find their image. Seeds 0 to 2 are judged. Sizes and codes were chosen without them, with
the teacher's embeddings of held-out pictures and 40 steps of seed 7; candidates of binary codes are chosen as in an index. A
result is one JSON line in `bench/results/embeddings.jsonl`; seeds with a result are skipped. Prints a table of means and ranges.
"""

import argparse
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recorded import Line, Recorded
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from tinyclip.artifacts.paths import SEGMENT_CODES, SEGMENT_VECTORS
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.indexes import IndexCodes
from tinyclip.schemas.spec import RetrievalTask
from tinyclip.specfile import load_spec
from tinyclip_workers.evaluation.compatibility import RetrievalSet
from tinyclip_workers.evaluation.tasks import embed_retrieval
from tinyclip_workers.model.files.folders import LoadedModel, load_student
from tinyclip_workers.model.rotation import rotated_model, rotated_weights
from tinyclip_workers.retrieval.codes import FLOATS, BinaryVectors, Vectors, leading, open_vectors, write_codes
from tinyclip_workers.retrieval.measuring import measure_codes, median_ms
from tinyclip_workers.types import Matrix
from training import run_stages, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "embeddings.jsonl", "seed")
SPEC = HERE.parent / "examples" / "emoji" / "half.yaml"
OBJECTIVE = "objective={feature_mimicry: 1, embedding_sizes: [32, 64, 128]}"
SIZES, WHOLE = (256, 128, 64, 32), 256
CODES: tuple[IndexCodes, ...] = ("float", "int8", "binary")
SEARCHES = {
    "teacher alone": ("teacher", "teacher"),
    "student's texts, teacher's images": ("student", "teacher"),
    "teacher's texts, student's images": ("teacher", "student"),
    "student alone": ("student", "student"),
}
"""The model of the texts and that of the images."""
TASK, LARGE, NOISE, K = "style-retrieval", 100_000, 0.02, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--students", type=Path, help="a folder to keep trained students in, and to take them from")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        with RESULTS.missing(seed) as missing:
            if missing:
                RESULTS.keep(run(seed, arguments.students))
    show(RESULTS.lines())


@dataclass(frozen=True)
class Pair:
    """A trained student and its teacher."""

    spec: JobSpec
    teacher: LoadedModel
    student: LoadedModel
    axes_EE: torch.Tensor
    seconds: float


def run(seed: int, students: Path | None) -> Line:
    """Train and measure one seed."""
    pair = trained(seed, students)
    [task] = [task for task in pair.spec.evaluation.tasks if task.name == TASK]
    assert isinstance(task, RetrievalTask)
    on_axes = LoadedModel(**{**vars(pair.teacher), "model": rotated_model(pair.teacher.model, pair.axes_EE)})
    found = embed_retrieval({"teacher": on_axes, "student": pair.student}, task)
    rows = [
        {"search": name, "size": size, "codes": codes, **measured(found, *models, size, codes)}
        for (name, models), size, codes in product(SEARCHES.items(), SIZES, CODES)
    ]
    costs = [{"size": size, "codes": codes, **cost(found, size, codes)} for size, codes in product(SIZES, CODES)]
    return {"seed": seed, "seconds": round(pair.seconds, 1), "rows": rows, "costs": costs}


def trained(seed: int, students: Path | None) -> Pair:
    """Return a student with nested embeddings, on the principal axes of its teacher's."""
    spec = JobSpec.model_validate(load_spec(SPEC, [f"seed={seed}", OBJECTIVE]))
    teacher = teacher_of(spec)
    assert teacher is not None
    kept = None if students is None else students / f"student-{seed}.safetensors"
    if kept is None or not kept.exists():
        [run] = run_stages(spec, teacher, f"nested half, seed {seed}", observe=lambda _: None)
        assert run.axes_EE is not None
        weights = {name: tensor.contiguous() for name, tensor in run.student.model.state_dict().items()}
        kept = kept or Path(tempfile.mkdtemp()) / "student.safetensors"
        kept.parent.mkdir(parents=True, exist_ok=True)
        about = {"layout": run.student.layout.model_dump_json(), "seconds": str(run.seconds)}
        save_file({**weights, "axes": run.axes_EE.contiguous()}, kept, about)
    return _read(spec, teacher, kept)


def _read(spec: JobSpec, teacher: LoadedModel, kept: Path) -> Pair:
    weights = load_file(kept)
    axes_EE = weights.pop("axes")
    with safe_open(kept, "pt") as file:
        about = file.metadata()
    rotated = {name: tensor.contiguous() for name, tensor in rotated_weights(weights, axes_EE).items()}
    student = load_student(Layout.model_validate_json(about["layout"]), save(rotated), teacher.image_mean, teacher.image_std)
    return Pair(spec, teacher, student, axes_EE, float(about["seconds"]))


def measured(found: RetrievalSet, texts: str, images: str, size: int, codes: IndexCodes) -> dict[str, float]:
    """Return R@10 of texts, and the share of the ten nearest by exact search in floats of the same size that is found."""
    floats_NE, queries_QE = (leading(x.numpy(), size) for x in (found.images_NE[images], found.texts_ME[texts]))
    vectors = coded(floats_NE, codes, queries_QE)
    nearest_QK = [vectors.nearest(query_E, K)[0] for query_E in queries_QE]
    exact_QK = np.argsort(-(queries_QE @ floats_NE.T), axis=1, kind="stable")[:, :K]
    images_of_text = [{i for i, rows in enumerate(found.texts_of_image) if text in rows} for text in range(len(queries_QE))]
    right = [bool(wanted & set(rows.tolist())) for wanted, rows in zip(images_of_text, nearest_QK, strict=True)]
    recall = [len(np.intersect1d(rows, exact)) / K for rows, exact in zip(nearest_QK, exact_QK, strict=True)]
    return {"r10": float(np.mean(right)), "recall": round(float(np.mean(recall)), 4)}


def cost(found: RetrievalSet, size: int, codes: IndexCodes) -> dict[str, Any]:
    """Return bytes of a vector and CPU time of a search, among many vectors near the student's images."""
    chance = np.random.default_rng(0)
    images_NE, texts_QE = (x["student"].numpy() for x in (found.images_NE, found.texts_ME))
    floats_NE = images_NE[chance.integers(len(images_NE), size=LARGE)]
    floats_NE = leading(leading(floats_NE + NOISE * chance.standard_normal(floats_NE.shape, np.float32), WHOLE), size)
    queries_QE = leading(texts_QE, size)[:100]
    with tempfile.TemporaryDirectory() as folder:
        vectors = coded(floats_NE, codes, queries_QE, Path(folder))
        stored = sum((Path(folder) / file).stat().st_size for file in SEGMENT_CODES[codes])
        milliseconds = median_ms(lambda query_E: vectors.nearest(query_E, K), queries_QE)
    candidates = vectors.width if isinstance(vectors, BinaryVectors) else None
    return {"bytes": round(stored / LARGE, 1), "search_ms": round(milliseconds or 0, 3), "candidates": candidates}


def coded(floats_NE: Matrix, codes: IndexCodes, queries_QE: Matrix, folder: Path | None = None) -> Vectors:
    """Write and open vectors as an index does. Its candidates of binary codes are chosen with rows and the queries given."""
    folder = folder or Path(tempfile.mkdtemp())
    np.save(folder / SEGMENT_VECTORS, floats_NE)
    if codes == "float":
        return open_vectors(folder, codes, 0)
    write_codes(folder, codes)
    (folder / FLOATS).unlink()
    vectors = open_vectors(folder, codes, 0)
    width = measure_codes(vectors, floats_NE, queries_QE[:: max(1, len(queries_QE) // 100)]).width
    return open_vectors(folder, codes, width)


def show(results: list[Line]) -> None:
    """Print the mean over the seeds, with the lowest and the highest in brackets."""
    table = Table(title="emoji, validation style: R@10 of texts, percent of the teacher's own with 256 floats")
    for column in ("numbers", "codes", *SEARCHES, "recall of codes", "bytes", "ms among 100,000"):
        table.add_column(column, justify="right")
    for size, codes in product(SIZES, CODES):
        cells = [str(size), codes]
        for search in SEARCHES:
            cells.append(_range([100 * _row(line, search, size, codes)["r10"] / _own(line) for line in results]))
        cells.append(_range([100 * _row(line, "student alone", size, codes)["recall"] for line in results]))
        costs = [next(c for c in line["costs"] if (c["size"], c["codes"]) == (size, codes)) for line in results]
        cells += [_mean([found["bytes"] for found in costs]), _mean([found["search_ms"] for found in costs])]
        table.add_row(*cells)
    Console(width=200).print(table)
    Console(width=200).print(f"{len(results)} seeds; the teacher's own R@10 is {100 * _own(results[0]):.1f}%" if results else "")


def _row(line: Line, search: str, size: int, codes: str) -> Line:
    found: Line = next(r for r in line["rows"] if (r["search"], r["size"], r["codes"]) == (search, size, codes))
    return found


def _own(line: Line) -> float:
    return float(_row(line, "teacher alone", WHOLE, "float")["r10"])


def _range(values: list[float]) -> str:
    spread = f" ({min(values):.1f} to {max(values):.1f})" if max(values) > min(values) else ""
    return f"{sum(values) / len(values):.1f}{spread}"


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}"


if __name__ == "__main__":
    main()
