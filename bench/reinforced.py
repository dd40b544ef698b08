"""Training from stored embeddings compared with live teachers.

    python bench/reinforced.py steps "/data/caltech101/train-*.tar" [--rounds 5] [--tokens 20 77] [--precisions fp32 bf16]
    python bench/reinforced.py students [--seeds 0 1 2]

`steps`: CPU seconds of a step of ViT-B-32 -> TinyCLIP-ViT-40M-32-Text-19M with random weights, one thread: with a live teacher,
with embeddings that are given in memory, and through the data path, which reads and decodes photos and finds their stored views
and embeddings, in the same process. The three take turns.

`students`: the demo's student (`examples/emoji/half.yaml`), K = 5: live teacher, stored embeddings with as many steps, and stored
embeddings with as much CPU time. Takes hours. Results are in `results/reinforced.jsonl`.
"""

import argparse
import io
import itertools
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hardware import cpu
from recorded import Recorded
from stored_data import register, reinforce, write_random_model
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.samples import image_bytes
from tinyclip_workers.data.shards import read_shard
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import LoadedModel, Tokenizer, load_folder
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.training.teachers.frozen import freeze_teachers
from tinyclip_workers.training.teachers.stored import StoredTargets
from tinyclip_workers.training.trainer import StageTrainer
from training import Trained, run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "reinforced.jsonl", "kind", "run", "seed")
DEMO = HERE.parent / "examples" / "emoji" / "half.yaml"
TEACHER, STUDENT, BATCH, PHOTOS, CPU = "ViT-B-32", "TinyCLIP-ViT-40M-32-Text-19M", 32, 192, torch.device("cpu")
RELEASED = {77: 10.0, 20: 11.1}
"""CPU seconds of a step of the released code on a machine of this kind, fp32."""
VIEWS = 5
WORDS = ("red", "blue", "green", "black", "white", "dog", "cat", "car", "tree", "house", "river", "stone")
"""Words of one token each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    steps = kinds.add_parser("steps")
    steps.add_argument("photos", help="WebDataset shards of photos")
    steps.add_argument("--rounds", type=int, default=5)
    steps.add_argument("--tokens", type=int, nargs="+", default=[20, 77])
    steps.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    students = kinds.add_parser("students")
    students.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    students.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(getattr(arguments, "threads", 1))
    with tempfile.TemporaryDirectory(prefix="tinyclip-bench-") as folder:
        if arguments.kind == "steps":
            for tokens in arguments.tokens:
                time_steps(Path(folder) / str(tokens), arguments.photos, tokens, arguments.precisions, arguments.rounds)
        else:
            train_students(Path(folder), arguments.seeds)


def time_steps(folder: Path, photos: str, tokens: int, precisions: list[str], rounds: int) -> None:
    """Time steps with texts of that many tokens, and record the medians."""
    teacher_address = write_random_model(folder / "teacher", PRESETS[TEACHER])
    teacher = load_folder(teacher_address.removeprefix("local-dir:"))
    shards = write_photos(folder / "photos.tar", photos, tokens, teacher.tokenizer)
    store = ArtifactsStore(str(folder / "store"))
    document = {
        "name": "steps", "teacher": {"model": teacher_address}, "data": {"train": {"shards": shards}}, "batch_size": BATCH,
        "stages": [{"name": "only", "inherit": "none", "student": {"preset": STUDENT}, "train": {"steps": 10_000}}],
    }  # fmt: skip
    spec = JobSpec.model_validate(document)
    _, index = register(store, spec.data.train)
    stored = reinforce(store, teacher={"model": teacher_address}, augmentations=1)
    for precision in precisions:
        ways = ways_to_step(spec.model_copy(update={"precision": precision}), teacher, index, stored)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):  # the first round is a warm-up
            for name, step in ways.items():
                started = time.process_time()
                step()
                taken[name] += [time.process_time() - started] if number else []
        medians = {name: round(statistics.median(each), 3) for name, each in taken.items()}
        pairs = zip(taken["given in memory"], taken["data path"], strict=True)
        line = {
            "kind": "steps", "run": f"{tokens} tokens, {precision}", "seed": 0, "rounds": rounds, "seconds": medians,
            "path_rate": round(statistics.median(given / path for given, path in pairs), 3),
            "released": RELEASED.get(tokens), "cpu": cpu(), "torch": torch.__version__,
        }  # fmt: skip
        print(json.dumps(line))
        RESULTS.keep(line)


def ways_to_step(
    spec: JobSpec, teacher: LoadedModel, index: DatasetIndex, stored: StoredReinforcement
) -> dict[str, Callable[[], object]]:
    """Return functions that take a step: with a live teacher, from embeddings in memory, and from the stored data."""
    live, given, path = (trainer_of(spec, teacher, None if each else stored) for each in (True, False, False))
    batches = batches_of(spec, teacher.tokenizer, index, stored)
    batch = next(batches)
    return {
        "live teacher": lambda: live.train_step(batch),
        "given in memory": lambda: given.train_step(batch),
        "data path": lambda: path.train_step(next(batches)),
    }


def trainer_of(spec: JobSpec, teacher: LoadedModel, stored: StoredReinforcement | None) -> StageTrainer:
    torch.manual_seed(0)
    stage = resolve_stage(spec, 0, teacher.layout, None, 0)
    targets = stored and StoredTargets(stored.document.teachers, None, CPU)
    colors = {"mean": teacher.image_mean, "std": teacher.image_std}
    teachers = freeze_teachers([teacher], [1.0], None)
    return StageTrainer(spec, stage, build_model(stage.layout), teachers, CPU, **colors, stored=targets)


def batches_of(spec: JobSpec, tokenizer: Tokenizer, index: DatasetIndex, stored: StoredReinforcement) -> Iterator[Batch]:
    """Yield batches that this process itself prepares: their CPU time counts."""
    stream = PairStream(
        spec.data, index, batch_size=spec.batch_size, image_size=224, tokenize=SingleTextTokenizer(tokenizer), seed=0,
        stored=stored,
    )  # fmt: skip
    return iter(BatchLoader(stream, 0))


def write_photos(path: Path, shards: str, tokens: int, tokenizer: Tokenizer) -> str:
    """Write a shard of the first photos, with captions of that many tokens."""
    samples = itertools.chain.from_iterable(read_shard(url) for url in expand_shards(shards))
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(itertools.islice(samples, PHOTOS)):
            caption = " ".join(WORDS[(number + 7 * place * (1 + number // 12)) % len(WORDS)] for place in range(tokens - 2))
            assert int(tokenizer(caption)[0].argmax()) + 1 == tokens, "every word is one token"
            for extension, data in (("jpg", image_bytes(sample, ["jpg", "jpeg"])), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(path)


def train_students(folder: Path, seeds: list[int]) -> None:
    """Train the demo's student from a live teacher and from stored embeddings, and record each one's scores."""
    spec = JobSpec.model_validate(load_spec(DEMO))
    store, train = ArtifactsStore(str(folder / "store")), spec.data.train
    _, index = register(store, train)
    assert spec.teacher is not None
    started = time.process_time()
    stored = reinforce(store, teacher=spec.teacher.model_dump(), augmentations=VIEWS, augment=train.augment.model_dump())
    print(f"reinforced {stored.document.samples:,} images in {time.process_time() - started:.0f} s of this process")
    for seed in seeds:
        live = train_once(spec, seed, "live", index, None)
        equal = train_once(spec, seed, "stored, equal steps", index, stored)
        if live and equal:
            steps = round(spec.stages[0].train.steps * live["seconds"] / equal["seconds"])
            train_once(spec, seed, "stored, equal time", index, stored, steps)


def train_once(
    spec: JobSpec, seed: int, run: str, index: DatasetIndex, stored: StoredReinforcement | None, steps: int | None = None
) -> dict[str, Any] | None:
    """Train and evaluate a student, and record it; returns the line, also of an earlier run."""
    known = [line for line in RESULTS.lines() if (line["kind"], line["run"], line["seed"]) == ("students", run, seed)]
    if known:
        return known[0]
    with RESULTS.missing("students", run, seed) as missing:
        if not missing:
            return None
        stage = spec.stages[0].model_copy(update={"train": spec.stages[0].train.model_copy(update={"steps": steps})})
        spec = spec.model_copy(update={"seed": seed, "stages": [stage if steps else spec.stages[0]]})
        trained: Trained
        [trained] = run_stages(spec, teacher_of(spec), f"{run}, seed {seed}", lambda _: None, index=index, stored=stored)
        line = {
            "kind": "students", "run": run, "seed": seed, "steps": spec.stages[0].train.steps,
            "seconds": round(trained.seconds, 1), "scores": scores_of(trained.student, spec),
        }  # fmt: skip
        RESULTS.keep(line)
        return line


if __name__ == "__main__":
    main()
