"""Searches on the emoji drawings beside the best of twelve uniform layouts made by hand (`uniform_layouts.py`).

`python bench/searches.py --students FOLDER [--seeds 0 1 2] [--rows keep-0.95 …]`, then `--report`.

A search runs as the service runs it: `searching.advise` decides, from the trials that have ended, what is trained next. Trials
train in this process. Layouts are compared by the pictures that are held out of training; what was chosen is judged on others:
a style that training never sees, and drawings in black and white, as outlines, and with inverted figures.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from claims_runs import BASE, MIMICRY
from distant_styles import distant_tasks
from hardware import cpu
from recorded import Recorded
from tinyclip.artifacts.searches import BeginTrial, CostModel, SearchRecord, SearchResult, TrialRecord
from tinyclip.schemas import JobSpec, SearchPost
from tinyclip.schemas._base import JSON
from tinyclip.schemas.jobs import JobState, ModelRef
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.searches import Measurement
from tinyclip.specfile import load_spec
from tinyclip_workers.costs.measuring import describe_hardware, measure_layouts
from tinyclip_workers.costs.model import Key, fit
from tinyclip_workers.costs.sampling import sample_layouts
from tinyclip_workers.model.architecture import build_clip
from tinyclip_workers.model.files.folders import LoadedModel
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.searching.advice import advise
from tinyclip_workers.searching.answers import latency_of
from training import Scores, run_stages, scores_of, teacher_of

HERE = Path(__file__).parent
RESULTS = Recorded(HERE / "results" / "searches.jsonl", "row", "seed")
CPU = torch.device("cpu")
STEPS, BATCH = 150, 64
"""Of a whole training. With the short ones before it, what is recommended has about as many as the uniform students' 300."""
TASK = "picture-subgroup"
ENGINES = ("torch", "openvino-int8")
KEYS = {engine: Key(engine, "image", 1, 1) for engine in ENGINES}
SHARES = (0.6, 0.4, 0.25)
"""Latency targets, as shares of the teacher's."""
KEEPS = (0.97, 0.95, 0.90)
LATENCY_TRIALS, KEEP_TRIALS = 4, 12
FITTED = {"torch": 48, "openvino-int8": 24}
ROWS = [f"{engine}-{share:g}" for engine in ENGINES for share in SHARES] + [f"keep-{keep:g}" for keep in KEEPS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    parser.add_argument("--students", type=Path, required=True, help="folder for the weights and the measurements")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.students.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for row in arguments.rows:
            with RESULTS.missing(row, seed) as missing:
                if missing:
                    RESULTS.keep(Bench(row, seed, arguments.students).run())


def base_spec(seed: int) -> dict[str, Any]:
    base = load_spec(BASE, [])
    tasks = [task for task in base["evaluation"]["tasks"] if task["name"] == TASK]
    return {
        **base, "objective": MIMICRY, "batch_size": BATCH, "seed": seed, "precision": "fp32",
        "stages": [{**base["stages"][0], "name": "student", "train": {"steps": STEPS}}],
        "optimizer": {"lr": 1e-3, "warmup_steps": 20}, "evaluation": {"tasks": tasks},
    }  # fmt: skip


def judge_spec(seed: int) -> JobSpec:
    """Return the spec with the tasks that no search sees."""
    base = load_spec(BASE, [])
    tasks = [task for task in base["evaluation"]["tasks"] if task["name"] in ("style-subgroup", "style-retrieval")]
    return JobSpec.model_validate({
        **base_spec(seed), "evaluation": {"tasks": tasks + distant_tasks(base, HERE / "results" / "distant")},
    })  # fmt: skip


class TrainedTrial(TrialRecord):
    """A trial with its spec, which a record does not have."""

    spec: JSON


class Bench:
    """One search in this process."""

    def __init__(self, row: str, seed: int, folder: Path) -> None:
        self.row, self.seed, self.folder = row, seed, folder
        self.spec = JobSpec.model_validate({**base_spec(seed), "name": row})
        teacher = teacher_of(self.spec)
        assert teacher is not None
        self.teacher = teacher
        self.costs = cost_model(folder / "costs.json", teacher.layout)
        self.records: list[TrainedTrial] = []
        self.measured: list[int] = []

    def run(self) -> dict[str, Any]:
        result = self.search()
        chosen = result.recommended
        student = self.load(self.records[chosen.trial]) if chosen is not None else None
        teacher_ms = self.costs.teacher_ms
        return {
            "row": self.row, "seed": self.seed, "cpu": cpu(), "trials": len(self.records),
            "steps": sum(steps_of(trial.spec) for trial in self.records), "reason": result.reason, "teacher_ms": teacher_ms,
            "teacher": self.teacher_quality, "limit_ms": self.limit_ms,
            "recommended": None if chosen is None or student is None else {
                "trial": chosen.trial, "params": chosen.params, "macs": chosen.macs,
                "lineage_steps": self.lineage_steps(chosen.trial),
                "measurements": [each.model_dump(mode="json") for each in chosen.measurements],
                "selected_by": self.records[chosen.trial].quality, "scores": scores_of(student, judge_spec(self.seed)),
                "layout": self.records[chosen.trial].layout.model_dump(mode="json"),
            },
            "settings": [
                {"rung": t.rung, **{name: t.settings.get(name) for name in ("scale", "shape", "phase", "from")},
                 "params": t.params, "quality": t.quality[TASK]["top1"], "steps": steps_of(t.spec)}
                for t in self.records
            ],
        }  # fmt: skip

    @property
    def limit_ms(self) -> float | None:
        if self.row.startswith("keep"):
            return None
        engine, _, share = self.row.rpartition("-")
        return round(float(share) * self.costs.teacher_ms[str(KEYS[engine])], 4)

    @property
    def post(self) -> SearchPost:
        spec = {**base_spec(self.seed), "name": self.row}
        if self.limit_ms is not None:
            limit = {"latency_ms": {"max": self.limit_ms}, "engine": self.row.rpartition("-")[0]}
            return SearchPost.model_validate({"spec": spec, "constraints": [limit], "budget": {"trials": LATENCY_TRIALS}})
        keep = {"task": TASK, "metric": "top1", "keep": float(self.row.split("-")[1])}
        fast = {"latency_ms": {"max": 10 * self.costs.teacher_ms[str(KEYS["torch"])]}, "engine": "torch"}
        return SearchPost.model_validate({
            "spec": spec, "constraints": [keep, fast], "minimize": "latency_ms", "budget": {"trials": KEEP_TRIALS},
        })  # fmt: skip

    @cached_property
    def teacher_quality(self) -> Scores:
        return scores_of(self.teacher, self.spec)

    def search(self) -> SearchResult:
        """Obey the advice until there is a result."""
        post, latency = self.post, latency_of(self.costs)
        while True:
            record = SearchRecord(
                id="sea_bench", post=post, costs=self.costs, teacher=self.teacher.layout, teacher_quality=self.teacher_quality,
                steps=STEPS, trials=self.records, measured=self.measured,
            )  # fmt: skip
            advice = advise(record, latency)
            if advice.finished is not None:
                return advice.finished
            self.records += [self.train(trial) for trial in advice.begin]
            if advice.measure:
                self.measure(advice.measure)

    def train(self, trial: BeginTrial) -> TrainedTrial:
        """Train a trial; those of one spec, of which the names of versions are a part, once for all searches."""
        spec = JobSpec.model_validate(trial.spec)
        name = hashlib.sha256(spec.model_copy(update={"name": "trial"}).model_dump_json().encode()).hexdigest()[:16]
        file = self.folder / f"{name}.pt"
        if not file.exists():
            source = trial.spec["stages"][0].get("inherit_from")
            first = self.load_named(source.removeprefix("registry:").partition("@")[0]) if source else None
            label = f"{self.row} {self.seed} trial {trial.number}"
            *_, trained = run_stages(spec, self.teacher, label, lambda _: None, first=first)
            model = trained.student
            torch.save({
                "layout": model.layout.model_dump(mode="json"), "state": model.model.state_dict(), "seconds": trained.seconds,
                "quality": scores_of(model, self.spec),
            }, file)  # fmt: skip
        saved = torch.load(file)
        layout = Layout.model_validate(saved["layout"])
        summary = summarize(layout)
        params = summary.image_params + summary.text_params
        return TrainedTrial(
            number=trial.number, rung=trial.rung, settings=trial.settings, spec=trial.spec, state=JobState.SUCCEEDED,
            model=ModelRef(name=name, version=1), layout=layout, params=params, macs=summary.macs, bytes=4 * params,
            quality=saved["quality"], teacher=self.teacher_quality, device_hours=saved["seconds"] / 3600,
        )  # fmt: skip

    def measure(self, numbers: Sequence[int]) -> None:
        layouts = [self.records[number].layout for number in numbers]
        found = latencies([layout for layout in layouts if layout is not None])
        for number, of_layout in zip(numbers, found, strict=True):
            self.records[number] = self.records[number].model_copy(update={"measurements": [
                Measurement(engine=engine, latency_ms={"image:1": of_layout[str(key)]}) for engine, key in KEYS.items()
            ]})  # fmt: skip
        self.measured += numbers

    def load(self, trial: TrialRecord) -> LoadedModel:
        assert trial.model is not None
        return self.load_named(trial.model.name)

    def load_named(self, name: str) -> LoadedModel:
        return load(self.folder / f"{name}.pt")

    def lineage_steps(self, number: int) -> int:
        """Return the steps of a trial and of those that it was cut out of."""
        source = self.records[number].settings.get("from")
        return steps_of(self.records[number].spec) + (self.lineage_steps(source) if source is not None else 0)


def steps_of(spec: dict[str, Any]) -> int:
    return sum(stage["train"]["steps"] for stage in spec["stages"])


def load(file: Path) -> LoadedModel:
    """Return a student that a bench has saved."""
    saved = torch.load(file)
    layout = Layout.model_validate(saved["layout"])
    model = build_clip(layout)
    model.load_state_dict(saved["state"])
    return LoadedModel(model.eval(), layout, make_tokenizer(layout), OPENAI_MEAN, OPENAI_STD, file.stem, file.stem)


def latencies(layouts: Sequence[Layout], engines: Sequence[str] = ENGINES) -> list[dict[str, float]]:
    """Return milliseconds by key, of layouts that take turns."""
    with tempfile.TemporaryDirectory() as cache:
        return measure_layouts(layouts, [[KEYS[engine] for engine in engines]] * len(layouts), Path(cache), CPU)


def cost_model(file: Path, teacher: Layout) -> CostModel:
    """Fit the latencies of students, or read them if they were fitted before."""
    if file.exists():
        return CostModel.model_validate_json(file.read_text())
    engines, teacher_ms = {}, {}
    for engine, key in KEYS.items():
        layouts = sample_layouts(teacher, {"image"}, FITTED[engine], 0)
        found = [of_layout[str(key)] for of_layout in latencies([teacher, *layouts], [engine])]
        engines[str(key)], teacher_ms[str(key)] = fit(key, [teacher, *layouts], found), found[0]
    model = CostModel(hardware=describe_hardware(CPU), engines=engines, teacher_ms=teacher_ms)
    file.write_text(model.model_dump_json())
    return model


if __name__ == "__main__":
    main()
