"""The runs of `claims.py`: what is compared, with which sizes, objectives and settings.

A run is named KIND-SIZE; SIZE is the share of the teacher's weights in attention and MLPs that its student keeps, about.

- Selection: `leading`, `random`, `manual` (importance), `auto` (importance), `frozen` and `joint`, all with feature mimicry, so
  that only the parts of the teacher differ that a student starts with. `resnet-…` are of the ResNet teacher.
- The paper: `scratch`, `paper-manual`, `paper-auto`, and `…-staged` with the steps of the one-shot runs in all; leading slices or
  joint masks, and affinity alone.
- Budgets: some of these with 300, 600 and 2,400 steps.
- Objectives: the student of `auto-50` taught by other terms, each with two learning rates, and `narrow-…`, that of `manual-50`
  with half of the teacher's embedding size.

The learning rates were selected on held-out training pictures: 1e-3 for feature mimicry and random weights, 3e-4 for affinity on
what was inherited.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tinyclip.schemas import JobSpec
from tinyclip.schemas.spec import StudentSpec
from tinyclip.specfile import load_spec
from tinyclip_workers.model.architecture import resolve_layout
from tinyclip_workers.model.files.sources import find_teacher
from tinyclip_workers.model.masked import removed_share

EMOJI = Path(__file__).parent.parent / "examples" / "emoji"
BASE = EMOJI / "half.yaml"
TEACHERS = ("vit", "resnet")
SHORT, MIDDLE, LONG = 300, 600, 2400
TOWERS = ("image", "text")

# Cut as the paper's manual students are: width and depth of both towers, attention heads with the width.
STUDENTS: dict[int, dict[str, Any]] = {
    75: {"image": {"width": 160}, "text": {"mlp_ratio": 3}},
    50: {"image": {"width": 128}, "text": {"layers": 2, "mlp_ratio": 3}},
    25: {"image": {"width": 96}, "text": {"layers": 1, "width": 160, "heads": 5, "mlp_ratio": 3}},
    12: {"image": {"width": 64}, "text": {"layers": 1, "width": 128, "heads": 4}},
}
MORE_REMOVED = {25: 0.0065}
"""Share of the teacher's weights that automatic students lack in addition to what the manual one lacks, by size: equal MACs."""
RESNET = {"image": {"width": 22}, "text": {"layers": 2}}
# Log-odds move by about mask_lr per step and have to move by 6 from "kept" to "removed": fast enough for a search of 160 steps.
MASK_LR = 0.06
SEARCH = {"prune_step": 160, "sparsity_warmup": 60}
STAGED = {75: 180, 50: 180, 25: 240}
"""Steps of the stages of a staged run, by the size of their student."""

MIMICRY = {"feature_mimicry": 1}
AFFINITY = {"affinity": 1}
CLUSTER_FILE = Path(__file__).parent / "results" / "clusters.safetensors"
OBJECTIVES: dict[str, dict[str, Any]] = {
    "affinity": AFFINITY,
    "affinity-and-mimicry": {"affinity": 1, "feature_mimicry": 1},
    "contrastive": {"contrastive": 1},
    "contrastive-and-mimicry": {"contrastive": 1, "feature_mimicry": 1},
    "interactive-contrastive": {"interactive_contrastive": 1},
    "relational-and-contrastive": {"contrastive": 1, "vertical_relational": 1, "cross_relational": 1},
    "cluster-instance": {"cluster_instance": 1, "clusters": str(CLUSTER_FILE)},
    "exploration": {"affinity": 1, "inheritance": 1, "exploration": 1},
}
BOTH = OBJECTIVES["affinity-and-mimicry"]
LOW_RATE = 3e-4
SETTINGS: dict[str, tuple[dict[str, Any], float, dict[str, Any]]] = {
    "low-rate": (MIMICRY, LOW_RATE, {}),
    "very-low-rate": (MIMICRY, 1e-4, {}),
    "averaging": (MIMICRY, 1e-3, {"averaging": {"decay": 0.98}}),
    "temperature-20": (BOTH, 1e-3, {"temperature": {"teacher": 20, "student": "learned"}}),
    "temperature-50": (BOTH, 1e-3, {"temperature": {"teacher": 50, "student": "learned"}}),
}
"""Objective, learning rate and other changes."""

NARROW = 128
NARROW_RATES = {"mimicry": 1e-3, "affinity-and-mimicry": 1e-3, "affinity": LOW_RATE}
"""Learning rate of each objective."""


@dataclass(frozen=True)
class Run:
    name: str
    steps: int
    stages: list[dict[str, Any]]
    objective: dict[str, Any] = field(default_factory=lambda: MIMICRY)
    lr: float = 1e-3
    teacher: str = "vit"
    random_units: bool = False
    """The teacher's units are put in a random order first, so that the leading ones are random ones."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the spec."""


def runs() -> Iterator[Run]:
    """Yield every run of one seed, those that others are compared with first."""
    yield from _selection()
    yield from _resnet()
    yield from _budgets(MIDDLE)
    yield from _paper()
    yield from _objectives()
    yield from _budgets(LONG)


def _selection() -> Iterator[Run]:
    for size in (50, 25, 75, 12):
        yield Run(f"manual-{size}", SHORT, [_manual(size, SHORT, "importance")])
        yield Run(f"auto-{size}", SHORT, [_auto(size, SHORT, "importance")])
        if size in (50, 25):
            yield Run(f"leading-{size}", SHORT, [_manual(size, SHORT, "leading")])
            yield Run(f"frozen-{size}", SHORT, [_auto(size, SHORT, "frozen")])
    yield Run("random-50", SHORT, [_manual(50, SHORT, "leading")], random_units=True)
    yield Run("joint-50", SHORT, [_auto(50, SHORT, "joint")])


def _paper() -> Iterator[Run]:
    paper: dict[str, Any] = {"objective": AFFINITY, "lr": 3e-4}
    scratch = _manual(50, MIDDLE, "leading") | {"inherit": "none"}
    yield Run("scratch-50", MIDDLE, [scratch], objective=AFFINITY)
    for size in (50, 25):
        yield Run(f"paper-manual-{size}", MIDDLE, [_manual(size, MIDDLE, "leading")], **paper)
    yield Run("paper-auto-25", MIDDLE, [_auto(25, MIDDLE, "joint")], **paper)
    yield Run("paper-manual-staged-25", MIDDLE, [_manual(size, steps, "leading") for size, steps in STAGED.items()], **paper)
    befores = (None, *STAGED)
    staged = [_auto(size, steps, "joint", befores[i]) for i, (size, steps) in enumerate(STAGED.items())]
    yield Run("paper-auto-staged-25", MIDDLE, staged, **paper)


def _budgets(steps: int) -> Iterator[Run]:
    yield Run("auto-50", steps, [_auto(50, steps, "importance")])
    yield Run("leading-50", steps, [_manual(50, steps, "leading")])
    if steps == MIDDLE:
        yield Run("manual-50", steps, [_manual(50, steps, "importance")])


def _resnet() -> Iterator[Run]:
    for kind, select in (("leading", "leading"), ("manual", "importance")):
        stage = {"name": "half", "inherit": "manual", "select": select, "student": RESNET, "train": {"steps": SHORT}}
        yield Run(f"resnet-{kind}-50", SHORT, [stage], teacher="resnet")


def _objectives() -> Iterator[Run]:
    stages = [_auto(50, SHORT, "importance")]
    for name, objective in OBJECTIVES.items():
        yield Run(f"objective-{name}", SHORT, stages, objective)
        yield Run(f"objective-{name}-low-rate", SHORT, stages, objective, LOW_RATE)
    for name, (objective, lr, changes) in SETTINGS.items():
        yield Run(name, SHORT, stages, objective, lr, changes=changes)
    student = STUDENTS[50] | {"embed_dim": NARROW}
    for name, lr in NARROW_RATES.items():
        stage = _manual(50, SHORT, "importance") | {"student": student}
        yield Run(f"narrow-{name}", SHORT, [stage], OBJECTIVES.get(name, MIMICRY), lr)


def _manual(size: int, steps: int, select: str) -> dict[str, Any]:
    student = {"select": select, "student": STUDENTS[size]}
    return {"name": f"to-{size}", "inherit": "manual", **student, "train": {"steps": steps}}


def _auto(size: int, steps: int, search: str, before: int | None = None) -> dict[str, Any]:
    """Return a stage that removes as much as the manual student of this size lacks."""
    start = 0.0 if before is None else removed_by(before)
    by_masks = {} if search == "importance" else {"start_sparsity": start, **SEARCH}
    more = MORE_REMOVED.get(size, 0) if search == "importance" else 0
    prune = {"search": search, "target_sparsity": removed_by(size) + more, **by_masks}
    return {"name": f"to-{size}", "inherit": "auto", "prune": prune, "train": {"steps": steps}}


def base_of(teacher: str) -> dict[str, Any]:
    """Return the example's spec with one of its teachers."""
    return load_spec(BASE) | {"teacher": {"model": f"local-dir:{EMOJI / 'teachers' / teacher}"}}


@cache
def removed_by(size: int) -> float:
    """Return the share of the ViT teacher's weights in attention and MLPs that a manual student lacks."""
    teacher = find_teacher(JobSpec.model_validate(base_of("vit")).teacher).layout
    student = resolve_layout(StudentSpec.model_validate(STUDENTS[size]), teacher)
    return round(removed_share(teacher, student, TOWERS), 4)
