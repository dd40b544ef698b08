"""The pruning of an automatic stage: what is searched for, how, and the target."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import Key, Request
from tinyclip.schemas.deployments import NamedEngine

COSTS = ("latency_ms", "bytes", "params", "macs")
Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PruneTarget(Request):
    """The largest cost that a student may have: exactly one of `latency_ms`, `bytes`, `params` and `macs`."""

    latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of one call of `tower` with `batch` items, as `coefficients` predict it."""
    engine: NamedEngine = "torch"
    """Of the latency."""
    tower: Literal["image", "text"] = "image"
    batch: int = Field(default=1, ge=1, le=1024)
    threads: int = Field(default=1, ge=1, le=256)
    coefficients: Annotated[dict[Key, Coefficient], Field(max_length=100)] | None = None
    """Milliseconds per unit of each term of a layout, fitted on the hardware that serves, for this engine, tower, batch and
    number of threads. A latency needs them."""
    bytes: int | None = Field(default=None, ge=1)
    """Of the file of the weights, embeddings included."""
    weights: Literal["fp32", "bf16", "int8"] = "fp32"
    """Of `bytes`: as a model version has them, in two bytes a number, or that with the token embedding in int8."""
    params: int | None = Field(default=None, ge=1)
    """Of both towers, embeddings included."""
    macs: int | None = Field(default=None, ge=1)
    """Of an image and a text of full context length."""

    @property
    def kind(self) -> str:
        """The name of the cost."""
        return next(name for name in COSTS if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        """The largest cost."""
        return float(getattr(self, self.kind))

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in COSTS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(COSTS)}, not {' and '.join(given) or 'none'}")
        if self.latency_ms is None and self.coefficients is not None:
            raise ValueError(f"coefficients belong to latency_ms, not to {self.kind}; remove them")
        return self


class PruneLayers(Request):
    """The number of blocks that each tower keeps; None: all."""

    image: int | None = Field(default=None, ge=1)
    text: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.image is None and self.text is None:
            raise ValueError("give image, text or both, as layers: {image: 6, text: 3}")
        return self


class PruneSpec(Request):
    """The search for what a student keeps, and the step at which everything else is removed (METHOD sections 3, 6 and 13)."""

    search: Literal["importance", "frozen", "joint"] = "importance"
    """`importance`: the most important units per parameter are kept; the cut is before the first step.
    `frozen`: masks are learned while weights are not; then everything that they keep is kept with its weights.
    `joint`: masks and weights are learned together, as in the paper; the learning rate warms up until the prune step.
    If it is omitted, `prune_step` implies `frozen`, and `granularity: paper` implies `joint`. The first two cut the student on
    the principal axes of its channels and fit it to the teacher."""
    target_sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Share of weights in attention and MLPs to remove, relative to the model at the start of consecutive automatic stages."""
    target: PruneTarget | None = None
    """The cost that the student has at most, in place of `target_sparsity`; METHOD section 16."""
    layers: PruneLayers | None = None
    """Blocks that each tower keeps, selected before the search; None: all, of which some may end without heads or units."""
    start_sparsity: float = Field(default=0.0, ge=0, lt=1)
    """The target at the stage's first step."""
    prune_step: int | None = Field(default=None, ge=1)
    """The step at which a search by masks ends and the student is cut."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps over which the learning rate rises after the cut, when a new optimizer starts; None: `optimizer.warmup_steps`."""
    sparsity_warmup: int = Field(default=1000, ge=0)
    """Steps over which the target grows from `start_sparsity` to `target_sparsity`."""
    towers: list[Literal["image", "text"]] = Field(default=["image", "text"], min_length=1, max_length=2)
    joint: bool = True
    """One target for both towers together; false: each tower reaches the target."""
    granularity: Literal["exact", "paper"] = "exact"
    """How much a unit at either end of the masks' range counts: 0 and 1 (`exact`), or 4.7% and 99.8% (`paper`)."""

    @property
    def cut_step(self) -> int:
        """The step before which the student is cut: 0 without a search by masks."""
        return self.prune_step or 0

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, data: Any) -> Any:
        if isinstance(data, dict) and "search" not in data:
            by_masks = "frozen" if data.get("prune_step") is not None else "importance"
            data = {**data, "search": "joint" if data.get("granularity") == "paper" else by_masks}
        target = data.get("target") if isinstance(data, dict) else None
        if isinstance(target, dict) and target.get("latency_ms") is not None and "towers" not in data:
            data = {**data, "towers": [target.get("tower", "image")]}
        return data

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.target_sparsity is None) == (self.target is None):
            raise ValueError("give either target_sparsity or target: {latency_ms | bytes | params | macs: …}")
        if self.target is None:
            return self
        if self.start_sparsity or not self.joint or self.granularity == "paper":
            raise ValueError("start_sparsity, joint: false and granularity: paper belong to target_sparsity; remove them")
        if self.target.latency_ms is not None and self.towers != [self.target.tower]:
            raise ValueError(f"a latency is that of one tower: give towers: [{self.target.tower}], or omit towers")
        return self

    @model_validator(mode="after")
    def _masks_need_steps(self) -> Self:
        if self.search == "importance" and self.prune_step is not None:
            raise ValueError("search: importance cuts before the first step; remove prune_step, or use search: frozen")
        if self.search != "importance" and self.prune_step is None:
            raise ValueError(f"search: {self.search} needs prune_step, the step at which the masks end")
        if self.search != "joint" and self.granularity == "paper":
            raise ValueError("granularity: paper belongs to search: joint; remove it, or use search: joint")
        return self
