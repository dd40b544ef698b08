"""A simulated world: the quality of a student as a function of its layout and of all steps that it was trained for."""

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from tinyclip.artifacts.searches import Advice, BeginTrial, CostModel, EngineCost, SearchRecord, TrialRecord
from tinyclip.schemas._base import JSON
from tinyclip.schemas.jobs import JobState, ModelRef
from tinyclip.schemas.layouts import ImageLayout, Layout, TextLayout
from tinyclip.schemas.searches import Measurement, SearchPost
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.searching import Cost, advise
from tinyclip_workers.searching.rungs import Rungs
from tinyclip_workers.searching.sizes import Size

STEPS = 400
TEACHER_VALUE = 0.6
SPEC: dict[str, Any] = {
    "name": "pets",
    "teacher": {"model": "local-dir:teacher"},
    "data": {"train": {"shards": "train.tar"}},
    "evaluation": {"tasks": [{"name": "val", "kind": "zero_shot", "shards": "val.tar"}]},
    "stages": [{"name": "student", "inherit": "auto", "prune": {"target_sparsity": 0.5}, "train": {"steps": STEPS}}],
    "optimizer": {"lr": 1e-3, "warmup_steps": 20},
}
VIT = Layout(
    embed_dim=64,
    image=ImageLayout(
        kind="vit", image_size=64, width=192, layers=[6], head_width=16, patch_size=16, heads=[12] * 6, mlp=[768] * 6
    ),
    text=TextLayout(context_length=16, vocab_size=1000, width=192, layers=6, head_width=16, heads=[12] * 6, mlp=[768] * 6),
)
RESNET = Layout(
    embed_dim=64,
    image=ImageLayout(kind="resnet", image_size=64, width=32, layers=[3, 4, 6, 3], head_width=32),
    text=VIT.text,
)


def post(**changes: Any) -> SearchPost:
    """Return a request for a search."""
    return SearchPost.model_validate({"spec": SPEC, **changes})


def latency(layout: Layout, cost: Cost) -> float:
    """Predict a latency: of blocks, and of products."""
    tower = layout.image if cost.tower == "image" else layout.text
    blocks = sum(tower.layers) if isinstance(tower.layers, list) else tower.layers
    if layout.image.kind == "resnet" and cost.tower == "image":
        return 0.2 + 0.05 * blocks + 4e-5 * layout.image.width**2 * blocks / 16 * 40
    products = sum(
        tower.width * (4 * heads * tower.head_width + 2 * units)
        for heads, units in zip(tower.heads or [], tower.mlp or [], strict=True)
    )
    return 0.2 + 0.12 * blocks + 1.5e-6 * products


def share(layout: Layout, tower: str) -> float:
    """Return the share of the ViT teacher's weights in the blocks of a tower."""
    own, whole = (layout.image, VIT.image) if tower == "image" else (layout.text, VIT.text)

    def weights(one: ImageLayout | TextLayout) -> int:
        return sum(one.width * (4 * h * one.head_width + 2 * m) for h, m in zip(one.heads or [], one.mlp or [], strict=True))

    return weights(own) / weights(whole)


class TrainedTrial(TrialRecord):
    """A trial with its spec, which a record does not have."""

    spec: JSON = {}


class World:
    """A cluster in which trainings have a known outcome."""

    def __init__(
        self, *, noise: float = 0.002, text_weight: float = 0.4, fails: Sequence[int] = (), hours: float = 0.1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.noise, self.text_weight, self.fails, self.hours = noise, text_weight, fails, hours
        self.best = dict(settings or {})

    def quality(self, layout: Layout, steps: float) -> float:
        """Return the quality without noise: it rises with both towers, is best for two thirds of the blocks, and saturates."""
        image, text = share(layout, "image"), share(layout, "text")
        depth = 1 + 0.25 * math.log(sum(layout.image.layers) / 4) ** 2
        loss = 0.03 * depth * (image**-0.6 - 1) + self.text_weight * 0.03 * (text**-0.6 - 1)
        return TEACHER_VALUE * (1 - loss) * (1 - 0.1 * math.exp(-3 * steps / STEPS))

    def train(self, trial: BeginTrial, record: SearchRecord) -> TrialRecord:
        """Return the trial as it ends."""
        begun = TrainedTrial(**trial.model_dump(), state=JobState.SUCCEEDED)
        if trial.number in self.fails:
            return begun.model_copy(update={"state": JobState.FAILED})
        layout = self._layout(trial, record)
        summary = summarize(layout)
        params = summary.image_params + summary.text_params
        seed = hashlib.sha256(f"{record.post.seed}:{trial.number}".encode()).hexdigest()
        value = self.quality(layout, self._steps(trial, record)) + random.Random(seed).gauss(0, self.noise)
        for path, best in self.best.items():
            value -= 0.03 * abs(math.log10(trial.settings.get(path, best) / best))
        length = trial.spec["stages"][-1]["train"]["steps"]
        return begun.model_copy(update={
            "model": ModelRef(name="pets", version=trial.number + 1), "layout": layout, "params": params,
            "macs": summary.macs, "bytes": 4 * params + 2000, "quality": {"val": {"top1": value}},
            "teacher": {"val": {"top1": TEACHER_VALUE}}, "device_hours": self.hours * length / STEPS,
        })  # fmt: skip

    def _layout(self, trial: BeginTrial, record: SearchRecord) -> Layout:
        """Return the layout: an automatic stage cuts layers unevenly."""
        if "size" not in trial.settings:
            return VIT
        assert record.teacher is not None
        layout = Size.from_json(trial.settings["size"]).layout(record.teacher)
        if layout.image.mlp is None or len(layout.image.mlp) < 2 or layout.image.mlp[0] == 768:
            return layout
        mlp = list(layout.image.mlp)
        mlp[0], mlp[-1] = mlp[0] - 5, mlp[-1] + 5
        return layout.model_copy(update={"image": layout.image.model_copy(update={"mlp": mlp})})

    def _steps(self, trial: BeginTrial | TrialRecord, record: SearchRecord) -> float:
        """Return the steps of a student and, in part, of those that it was made from."""
        steps = max(1, round(STEPS * Rungs.of(record.post.budget.trials).shares[trial.rung]))
        before = trial.settings.get("from")
        if before is None:
            return steps
        parent = record.trials[before]
        inherited = self._steps(parent, record)
        return steps + inherited * (0.8 if trial.settings.get("continues") is not None else 0.3)


def new_record(request: SearchPost, teacher: Layout = VIT) -> SearchRecord:
    """Return the record of a search that has not begun."""
    costs = CostModel(hardware="a laptop", engines={
        f"torch:{tower}:1:1": EngineCost(family="vit" if tower == "image" else "text", coefficients={}, median_error=0.01,
                                         p90_error=0.02, layouts=40)
        for tower in ("image", "text")
    })  # fmt: skip
    teacher_quality = {"val": {"top1": TEACHER_VALUE}}
    return SearchRecord(id="sea_1", post=request, costs=costs, teacher=teacher, teacher_quality=teacher_quality, device_hours=0.1)


def step(record: SearchRecord, world: World) -> tuple[SearchRecord, Advice]:
    """Ask for advice and follow it."""
    advice = advise(record, latency)
    for trial in advice.begin:
        record = record.model_copy(update={"trials": [*record.trials, world.train(trial, record)]})
    if advice.measure is not None:
        trials = [
            trial.model_copy(update={"measurements": measure(trial)}) if trial.number in advice.measure else trial
            for trial in record.trials
        ]
        record = record.model_copy(update={"measured": [*record.measured, *advice.measure], "trials": trials})
    return record, advice


def run(record: SearchRecord, world: World) -> tuple[SearchRecord, Advice]:
    """Follow the advice to the end."""
    for _ in range(500):
        record, advice = step(record, world)
        if advice.finished is not None:
            return record, advice
        assert advice.begin or advice.measure
    raise AssertionError("the search does not end")


def measure(trial: TrialRecord) -> list[Measurement]:
    """Measure a finalist: as predicted, in one engine."""
    assert trial.layout is not None
    times = {f"{tower}:1": latency(trial.layout, Cost("latency_ms", tower=tower)) for tower in ("image", "text")}
    return [Measurement(engine="torch", latency_ms=times, bytes=trial.bytes, quality=trial.quality)]
