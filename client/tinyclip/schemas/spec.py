"""The job spec: what a user says about the student to be made (the wire contract's `JobSpec`)."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tinyclip.schemas._base import Request

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Names of jobs, stages, models, deployments and indexes: they become folders and URL parts."""

Templates = list[str] | str
Classes = list[str] | str


class TeacherSpec(Request):
    """Where the teacher comes from."""

    model: str
    """open_clip architecture | hf-hub:ORG/NAME | local-dir:PATH_OR_URI | registry:NAME@ALIAS_OR_VERSION."""
    pretrained: str | None = None
    """open_clip tag, or a path or URI of weights; omitted for the last three forms."""


class ImageAugmentation(Request):
    """How a training picture is varied (METHOD section 8 is the default)."""

    crop_scale: tuple[float, float] = (0.9, 1.0)
    """Share of the picture's area that a random crop keeps."""
    degrees: float = Field(default=0.0, ge=0, le=180)
    """Random rotation, either way."""
    translate: float = Field(default=0.0, ge=0, lt=1)
    """Random shift as a share of the side."""
    scale: tuple[float, float] | None = None
    """Random zoom of the affine transform; null: none."""
    color_jitter: float = Field(default=0.0, ge=0, le=1)
    """Strength of random brightness, contrast and saturation; a quarter of it for hue."""
    horizontal_flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image."""
    gray: float = Field(default=0.0, ge=0, le=1)
    """Probability of losing all colour."""


class TrainData(Request):
    shards: str | list[str]
    """Brace lists and globs of WebDataset shards: local paths, s3://, http(s)://."""
    samples: int | None = Field(default=None, ge=1, le=10**12)
    """Pairs in one epoch; null: counted once when the job starts."""
    image_key: list[str] = ["jpg", "png", "webp", "jpeg"]
    caption_key: str = "txt"
    """`txt`, or `json.FIELD`; where the field holds several captions, one is drawn each time."""
    distinct_key: str | None = None
    """`json.FIELD`: no two pairs of one batch share its value (two pictures of one concept are not negatives)."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of pairs, chosen by a hash of their key, that training never sees; a task with `subset: holdout` reads them."""
    augment: ImageAugmentation = ImageAugmentation()


class DataSpec(Request):
    train: TrainData
    shuffle: int = Field(default=10_000, ge=0)
    """Pairs held in memory to draw from; 0 keeps the order of the shards."""


class _Task(Request):
    name: Name
    shards: str | list[str]
    image_key: list[str] = ["jpg", "png", "webp", "jpeg"]
    subset: Literal["all", "holdout"] = "all"
    """`holdout` reads only the pairs that `data.train.holdout` keeps from training."""
    where: dict[str, str | int | float | bool] = {}
    """Only samples whose JSON has these values, as `{seen_concept: false}`."""


class ZeroShotTask(_Task):
    kind: Literal["zero_shot"]
    classes: Classes
    """A list, or the path or URI of a file with one class a line (or a JSON list)."""
    templates: Templates = ["a photo of a {}."]
    label_key: str = "cls"
    """`cls` (a file of the sample with the class number) or `json.FIELD`."""


class RetrievalTask(_Task):
    kind: Literal["retrieval"]
    caption_key: str = "txt"


class LinearProbeTask(_Task):
    kind: Literal["linear_probe"]
    train_shards: str | list[str]
    label_key: str = "cls"


EvaluationTask = Annotated[ZeroShotTask | RetrievalTask | LinearProbeTask, Field(discriminator="kind")]


class EvaluationSpec(Request):
    every_steps: int | None = Field(default=None, ge=1)
    """null: at the end of each stage only."""
    tasks: list[EvaluationTask] = []


class ImageTower(Request):
    """An image tower; what is omitted is taken from the model that the student inherits from."""

    layers: int | tuple[int, int, int, int] | None = None
    """Transformer blocks, or bottlenecks in each of the four stages of a ResNet."""
    width: int | None = Field(default=None, ge=1)
    head_width: int | None = Field(default=None, ge=1)
    mlp_ratio: float | None = Field(default=None, gt=0)
    patch_size: int | None = Field(default=None, ge=1)
    image_size: int | None = Field(default=None, ge=1)


class TextTower(Request):
    """A text tower; what is omitted is taken from the model that the student inherits from."""

    layers: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    heads: int | None = Field(default=None, ge=1)
    mlp_ratio: float | None = Field(default=None, gt=0)
    context_length: int | None = Field(default=None, ge=4)
    vocab_size: int | None = Field(default=None, ge=2)


class StudentSpec(Request):
    """A published architecture by name, or the towers spelled out."""

    preset: str | None = None
    image: ImageTower | None = None
    text: TextTower | None = None
    embed_dim: int | None = Field(default=None, ge=1)
    quick_gelu: bool | None = None

    @model_validator(mode="after")
    def _preset_or_towers(self) -> Self:
        if self.preset and (self.image or self.text or self.embed_dim or self.quick_gelu is not None):
            raise ValueError("give either a preset or towers, not both")
        return self


class TrainLength(Request):
    """Exactly one of the three."""

    steps: int | None = Field(default=None, ge=1, le=10**9)
    samples: int | None = Field(default=None, ge=1, le=10**12)
    epochs: float | None = Field(default=None, gt=0, le=10**6)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [value for value in (self.steps, self.samples, self.epochs) if value is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of steps, samples and epochs")
        return self


class PruneSpec(Request):
    """Learnable masks and the step at which they are folded (METHOD sections 3 and 6).

    The stage's learning rate warms up until that step, whatever `optimizer.warmup_steps` says, and falls from there.
    """

    target_sparsity: float = Field(gt=0, lt=1)
    """Share of the weights in attention and MLPs that is to go, of the model with which the automatic stages in a row began."""
    start_sparsity: float = Field(default=0.0, ge=0, lt=1)
    """Asked for at the stage's first step."""
    prune_step: int = Field(ge=1)
    """Steps before the masks are folded."""
    sparsity_warmup: int = Field(default=1000, ge=0)
    """Steps over which the sparsity that is asked for grows from start to target."""
    towers: list[Literal["image", "text"]] = Field(default=["image", "text"], min_length=1)
    joint: bool = True
    """One target for both towers together, which trade size with each other; false: each tower reaches the target."""
    granularity: Literal["exact", "paper"] = "exact"
    """How a unit at the ends of the masks' range counts. `exact`: as gone, and as whole. `paper`: as 4.7% and as 99.8%."""


class Objective(Request):
    """Weights of the named terms; a term of weight 0 is not computed."""

    affinity: float = Field(default=1.0, ge=0)
    contrastive: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("every term has weight 0: nothing would be learned; give one a positive weight")
        return self


class Temperature(Request):
    """Logit scales (inverse temperatures); METHOD section 2."""

    teacher: Annotated[float, Field(gt=0)] | None = 50.0
    """null: the teacher's own."""
    student: Annotated[float, Field(gt=0)] | Literal["learned"] = 50.0


class OptimizerSpec(Request):
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=5.0, gt=0)
    mask_lr: float = Field(default=0.02, gt=0)


class StageSpec(Request):
    name: Name
    inherit: Literal["manual", "auto", "none"] = "manual"
    student: StudentSpec | None = None
    train: TrainLength
    prune: PruneSpec | None = None
    objective: Objective | None = None
    optimizer: OptimizerSpec | None = None
    batch_size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fits_its_inheritance(self) -> Self:
        if self.inherit == "auto" and self.prune is None:
            raise ValueError("inherit: auto needs prune: {target_sparsity, prune_step, …}")
        if self.inherit == "auto" and self.student is not None:
            raise ValueError("inherit: auto finds the student itself; remove student or use inherit: manual")
        if self.inherit != "auto" and self.prune is not None:
            raise ValueError("prune belongs to inherit: auto")
        if self.inherit != "auto" and self.student is None:
            raise ValueError("say which student to build: student: {preset: …} or {image: {…}, text: {…}}")
        return self


class WorkerRange(Request):
    min: int = Field(ge=1)
    max: int = Field(ge=1)


class Resources(Request):
    workers: Annotated[int, Field(ge=1)] | WorkerRange = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: float = Field(default=1, gt=0)


class CheckpointSpec(Request):
    every_steps: int = Field(default=500, ge=1)
    keep: int = Field(default=3, ge=1)


class JobSpec(Request):
    """Everything that decides the student. The smallest has name, teacher, data.train.shards and one stage."""

    spec_version: Literal[1] = 1
    name: Name
    labels: dict[str, str] = {}
    teacher: TeacherSpec | None = None
    """Omitted with `objective: {affinity: 0, contrastive: 1}`: a plain CLIP is trained."""
    data: DataSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    stages: list[StageSpec] = Field(min_length=1)
    objective: Objective = Objective()
    temperature: Temperature = Temperature()
    optimizer: OptimizerSpec = OptimizerSpec()
    batch_size: int = Field(default=256, ge=1)
    """Global; split over the workers by the engine."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Pairs that a worker holds in memory at once; the gradient is that of the whole batch. Costs one more forward pass."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    resources: Resources = Resources()
    checkpoint: CheckpointSpec = CheckpointSpec()
    max_attempts: int = Field(default=3, ge=1, le=100)
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _objective_of_the_named_terms_only(cls, data: Any) -> Any:
        """`objective: {contrastive: 1}` means contrastive alone: naming terms names all of them."""
        if isinstance(data, dict):
            for holder in [data, *(s for s in data.get("stages") or [] if isinstance(s, dict))]:
                objective = holder.get("objective")
                if isinstance(objective, dict) and objective and "affinity" not in objective:
                    objective["affinity"] = 0.0
        return data

    @model_validator(mode="after")
    def _what_needs_a_teacher_has_one(self) -> Self:
        if self.teacher is not None:
            return self
        for index, stage in enumerate(self.stages):
            if (stage.objective or self.objective).affinity > 0:
                raise ValueError(
                    f"stage {index} ({stage.name}) mimics a teacher's affinity but the spec has no teacher; "
                    "add teacher: {model: …} or set objective: {contrastive: 1}"
                )
            if index == 0 and stage.inherit != "none":
                raise ValueError("stage 0 inherits from the teacher but the spec has none; add teacher or use inherit: none")
        return self
