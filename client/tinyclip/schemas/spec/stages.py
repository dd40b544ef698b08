"""The stages of a job spec: the student, its inheritance, its objective and its length."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tinyclip.schemas._base import Line, Request
from tinyclip.schemas.addresses import LOCAL_DIR, Address, ModelName
from tinyclip.schemas.spec.data import Name
from tinyclip.schemas.spec.pruning import PruneSpec


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
    """An architecture by name, or its towers."""

    preset: Line | None = None
    """A published student of TinyCLIP, or an architecture of open_clip, as `MobileCLIP2-S0`. Only `image.image_size`,
    `text.context_length` and, for the latter, `embed_dim` may be given with it."""
    image: ImageTower | None = None
    text: TextTower | None = None
    embed_dim: int | None = Field(default=None, ge=1)
    quick_gelu: bool | None = None

    @model_validator(mode="after")
    def _preset_or_towers(self) -> Self:
        if self.preset is None:
            return self
        given = [name for name in ("quick_gelu",) if getattr(self, name) is not None]
        for tower, sizes in (("image", {"image_size"}), ("text", {"context_length"})):
            fields = getattr(self, tower)
            values = {} if fields is None else fields.model_dump(exclude_none=True)
            given += [f"{tower}.{name}" for name in sorted(values.keys() - sizes)]
        if given:
            raise ValueError(f"give either a preset or towers, not both; remove {', '.join(given)}")
        return self


class TrainLength(Request):
    """The length of training: exactly one of the three."""

    steps: int | None = Field(default=None, ge=1, le=10**9)
    samples: int | None = Field(default=None, ge=1, le=10**12)
    epochs: float | None = Field(default=None, gt=0, le=10**6)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [value for value in (self.steps, self.samples, self.epochs) if value is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of steps, samples and epochs")
        return self


TEACHER_SPACE_TERMS = (
    "feature_mimicry", "inheritance", "exploration", "interactive_contrastive", "vertical_relational", "cross_relational",
    "cluster_instance",
)
"""Terms that compare embeddings of student and teacher, through a learned projection if their sizes differ."""

TEACHER_TERMS = ("affinity", "sigmoid_affinity", *TEACHER_SPACE_TERMS)

SIGMOID_TERMS = ("sigmoid_affinity", "sigmoid_contrastive")
"""Terms for which the student has a logit bias."""

WITHOUT_LOGIT_SCALE = ("feature_mimicry", "inheritance", "exploration")


class Objective(Request):
    """Weights of the terms of the loss; a term of weight 0 is not computed. Formulas and sources: METHOD section 12.

    Without an `objective` a spec has `DEFAULT_OBJECTIVE`; the paper's is `{affinity: 1}`.
    """

    affinity: float = Field(default=0.0, ge=0)
    """Affinity mimicking, the method of TinyCLIP; with several teachers, of all of them."""
    sigmoid_affinity: float = Field(default=0.0, ge=0)
    """The probabilities of sigmoid teachers, as SigLIP, for every pair by itself; teachers of other kinds take no part."""
    contrastive: float = Field(default=0.0, ge=0)
    """CLIP's loss, which needs no teacher."""
    sigmoid_contrastive: float = Field(default=0.0, ge=0)
    """SigLIP's loss, which needs no teacher."""
    feature_mimicry: float = Field(default=0.0, ge=0)
    """CLIP-KD: squared distance to the teacher's embeddings. Weight 1 is the published weight, whatever the embeddings' size."""
    inheritance: float = Field(default=0.0, ge=0)
    """IE-KD: the first half of the embedding's dimensions points in the direction of the teacher's."""
    exploration: float = Field(default=0.0, ge=0)
    """IE-KD: the second half is orthogonal to the teacher's. Useful only beside terms that give it something to learn."""
    interactive_contrastive: float = Field(default=0.0, ge=0)
    """CLIP-KD: contrast of the student's images with the teacher's texts, and of its texts with the teacher's images."""
    vertical_relational: float = Field(default=0.0, ge=0)
    """CLIP-RD's VRD: images are as similar to the teacher's images as texts are to the teacher's texts."""
    cross_relational: float = Field(default=0.0, ge=0)
    """CLIP-RD's XRD: images are as similar to the teacher's texts as texts are to the teacher's images."""
    cluster_instance: float = Field(default=0.0, ge=0)
    """CLIP-CID: images are classified by the cluster of the teacher's embedding, and so are texts. Needs `clusters`."""
    clusters: Address | None = None
    """Path or URI of the file that `python -m tinyclip_workers.training.clusters SPEC OUT` writes; for `cluster_instance`."""
    embedding_sizes: list[Annotated[int, Field(ge=1)]] = Field(default=[], max_length=16)
    """Nested sizes (Matryoshka): the terms are a mean over those of the leading dimensions of the embeddings, for each of these
    sizes and for all dimensions. Increasing; METHOD section 15."""

    def weights(self) -> dict[str, float]:
        """Return the weight of each term."""
        return self.model_dump(exclude={"clusters", "embedding_sizes"})

    def nested_sizes(self, embed_dim: int) -> list[int]:
        """Return the sizes that embeddings of `embed_dim` numbers are trained for, the last of which is all; or none."""
        smaller = [size for size in self.embedding_sizes if size < embed_dim]
        return [*smaller, embed_dim] if self.embedding_sizes else []

    def teacher_terms(self) -> list[str]:
        """Return the terms of positive weight that need a teacher."""
        return [name for name in TEACHER_TERMS if self.weights()[name] > 0]

    def teacher_space_terms(self) -> list[str]:
        """Return the terms of positive weight that compare embeddings of student and teacher."""
        return [name for name in TEACHER_SPACE_TERMS if self.weights()[name] > 0]

    def uses_every_teacher(self) -> bool:
        """Return whether a term of positive weight uses several teachers; the others use the first."""
        return self.affinity > 0 or self.sigmoid_affinity > 0

    def uses_logit_bias(self) -> bool:
        """Return whether a term of positive weight uses the student's logit bias."""
        return any(self.weights()[name] > 0 for name in SIGMOID_TERMS)

    def uses_logit_scale(self) -> bool:
        """Return whether any term of positive weight uses the student's logit scale."""
        return any(weight > 0 for name, weight in self.weights().items() if name not in WITHOUT_LOGIT_SCALE)

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not any(self.weights().values()):
            raise ValueError("every term has weight 0; give one a positive weight")
        return self

    @field_validator("embedding_sizes")
    @classmethod
    def _increasing(cls, sizes: list[int]) -> list[int]:
        if sizes != sorted(set(sizes)):
            raise ValueError("give increasing sizes, each once, as in [32, 64, 128]")
        return sizes


DEFAULT_OBJECTIVE = Objective(affinity=1, feature_mimicry=1)


class Temperature(Request):
    """Logit scales (inverse temperatures); METHOD section 2."""

    teacher: Annotated[float, Field(gt=0)] | None = 50.0
    """None: each teacher's own."""
    student: Annotated[float, Field(gt=0)] | Literal["learned"] = 50.0


class OptimizerSpec(Request):
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] = 3e-4
    """Of the weights. The default is for students that inherit by importance (docs/recipes.md); the paper's scripts have 1e-4.
    `auto`: selected before the first step of a stage, by its effect on the agreement with the teacher."""
    weight_decay: float = Field(default=0.2, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(default=1e-6, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=5.0, gt=0)
    mask_lr: float = Field(default=0.02, gt=0)
    """The rate of masks, which is constant."""
    multiplier_lr: float | None = Field(default=None, gt=0)
    """The rate of the multipliers of the sparsity constraint, which is constant; None: `mask_lr`."""


class Averaging(Request):
    """An exponential moving average of the student's weights; exported if it agrees better with the teacher."""

    decay: float = Field(default=0.99, ge=0, lt=1)
    """Share of the average that a step keeps, after some steps in which it grows; 0: no averaging."""


NAMED_WITH_WEIGHTS = ("registry:", LOCAL_DIR, "hf-hub:")
"""Prefixes of models that need no `pretrained`."""


class StageSpec(Request):
    name: Name
    inherit: Literal["manual", "auto", "none"] = "manual"
    select: Literal["importance", "leading"] = "importance"
    """What `inherit: manual` takes from the parent: the most important blocks, heads and MLP units, on the principal axes of its
    channels, fitted to the teacher (`importance`), or the leading part of every tensor, as in the paper (`leading`)."""
    inherit_from: ModelName | None = None
    """The model that the first stage inherits from, in place of the teacher, which still teaches: local-dir:PATH_OR_URI |
    hf-hub:ORG/NAME | registry:NAME@ALIAS_OR_VERSION. A student of the same sizes starts with exactly its weights."""
    student: StudentSpec | None = None
    train: TrainLength
    prune: PruneSpec | None = None
    objective: Objective | None = None
    optimizer: OptimizerSpec | None = None
    averaging: Averaging | None = None
    batch_size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fits_its_inheritance(self) -> Self:
        if self.inherit == "auto" and self.prune is None:
            raise ValueError("inherit: auto needs prune: {target_sparsity: …} or prune: {target: …}")
        if self.inherit == "auto" and self.student is not None:
            raise ValueError("inherit: auto determines the student; remove student or use inherit: manual")
        if self.inherit != "auto" and self.prune is not None:
            raise ValueError("prune belongs to inherit: auto")
        if self.inherit_from is not None and self.inherit == "none":
            raise ValueError("inherit: none has random weights; remove inherit_from, or use inherit: manual or auto")
        if self.inherit_from is not None and not self.inherit_from.startswith(NAMED_WITH_WEIGHTS):
            raise ValueError("inherit_from is registry:NAME@VERSION, local-dir:PATH or hf-hub:ORG/NAME, which have their weights")
        if self.inherit != "auto" and self.student is None:
            raise ValueError("needs a student: give student: {preset: …} or {image: {…}, text: {…}}")
        return self
