"""Data sets, their versions, reports and reinforcements."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tinyclip.schemas._base import JSON, Key, Keys, Line, Request, Response, Timestamp
from tinyclip.schemas.addresses import Address, Shards
from tinyclip.schemas.spec import EvaluationTask, ImageAugmentation, JobSpec, Languages, TeacherSpec, WeightedTeacher


class Range(Request):
    """Bounds of a number, both inclusive."""

    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_number(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("has no bounds; give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no number is between {self.min} and {self.max}; exchange them")
        return self


MEASURES = ("agreement", "short_side", "aspect_ratio")
"""Measures of a sample that `where` may bound: the teacher's similarity of the pair, pixels, long side to short side."""


def _conditions(value: Any) -> Any:
    """Refuse the first condition that is neither a range of a measure nor a scalar: a union reports many errors for each."""
    for key, each in value.items() if isinstance(value, dict) else ():
        name = str(key)[:50]
        if isinstance(each, dict) and key not in MEASURES:
            raise ValueError(f"{name} is not measured, so it has no range; ranges are for {', '.join(MEASURES)}")
        if not isinstance(each, dict | str | int | float):
            raise ValueError(f"the value of {name} is not a text, a number, true, false or a range")
    return value


Where = Annotated[dict[Key, Range | Line | int | float | bool], Field(max_length=100), BeforeValidator(_conditions)]


class DatasetSource(Request):
    """Shards of pairs, and which of their files are image and caption."""

    shards: Shards
    """Brace lists and globs of WebDataset shards: local paths, s3://, http(s)://."""
    image_key: Keys = ["jpg", "png", "webp", "jpeg"]
    caption_key: Key = "txt"
    """`txt`, or `json.FIELD`; where the field holds several captions, one is drawn each time. A mapping has them by language."""
    languages: Languages = []
    """Languages of the captions, of which every batch has the same number of pairs, up to one. The first is that of captions
    without a language."""
    distinct_key: Key | None = None
    """`json.FIELD`: no two pairs of one batch share its value (two images of one concept are not negatives)."""
    where: Where = {}
    """Only samples with these values in their JSON, or with measures in a range, as `{agreement: {min: 0.2}}`."""
    captions: Address | None = None
    """A file of more captions, such as synthetic ones: Parquet, or JSON lines of `{"key": …, "captions": […]}`. With languages,
    `captions` is a mapping, as `{"de": […], "ja": […]}`."""

    @model_validator(mode="after")
    def _distinct_languages(self) -> Self:
        if len(set(self.languages)) < len(self.languages):
            raise ValueError("languages names one twice; remove the repetition")
        return self


class DatasetPut(Request):
    """A data set to be read; a repeated request makes a new version if the shards or the settings have changed."""

    source: DatasetSource
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of pairs, chosen by a hash of their key, that training never sees; a task with `subset: holdout` reads them."""
    teacher: TeacherSpec | None = None
    """Its agreement with the pairs is part of the report."""
    tasks: list[EvaluationTask] = Field(default=[], max_length=200)
    """Evaluation tasks whose images are looked for among the pairs."""
    image_size: int | None = Field(default=None, ge=16, le=4096)
    """Side of the student's input, with which image sizes are compared; null: 224."""

    @model_validator(mode="after")
    def _measurable(self) -> Self:
        if isinstance(self.source.where.get("agreement"), Range) and self.teacher is None:
            raise ValueError("source.where.agreement is measured by a teacher; give one, or omit the range")
        return self


class DatasetState(StrEnum):
    REGISTERING = "registering"
    READY = "ready"
    FAILED = "failed"
    """The newest request failed; earlier versions stay usable."""
    DELETING = "deleting"

    @property
    def settled(self) -> bool:
        """True when no job reads the shards."""
        return self in (DatasetState.READY, DatasetState.FAILED)


DatasetAction = Literal["register", "delete"]
"""`register`: to PUT it again."""
DatasetVersionAction = Literal["train", "reinforce", "alias", "delete"]


class DatasetError(Response):
    """The reason of a failure; `pointer` names the field of the request that caused it, if there is one."""

    code: str
    message: str
    pointer: str | None = None
    value: Any = None


class Dataset(Response):
    name: str
    state: DatasetState
    latest: int | None = None
    """The newest version; null until the first one is committed."""
    aliases: dict[str, int] = {}
    versions: list[int] = []
    source: DatasetSource
    holdout: float = 0.0
    progress: float = 0.0
    message: str = ""
    error: DatasetError | None = None
    """The reason why the newest registration failed."""
    ray_submission_id: str | None = None
    actions: list[DatasetAction] = []
    """What the state allows to the caller now."""
    created_at: Timestamp
    updated_at: Timestamp


class CaptionStatistics(Response):
    captions: int
    """All captions of usable samples."""
    per_sample: float
    characters: dict[str, float]
    """min, mean, p95, max."""
    distinct: int
    """Different texts; estimated in data sets of over 10 million captions."""
    languages: dict[str, int] = {}
    """Captions in each of `source.languages`."""


class ImageSizes(Response):
    width: dict[str, float]
    """min, p5, median, p95, max, in pixels."""
    height: dict[str, float]
    smaller_than_input: float
    """Share whose shorter side is smaller than the student's input."""


class Finding(Response):
    """Something in the data that a user should know of."""

    code: str
    """Stable, such as `duplicate_captions`."""
    severity: Literal["info", "warning", "error"]
    count: int
    """Samples concerned; estimated where `estimated`."""
    share: float
    """Of all samples."""
    estimated: bool = False
    message: str
    """The finding in a sentence, with its numbers."""
    remedy: str
    """The action that mends it."""
    examples: list[JSON] = []
    """At most five: `{key, shard, detail}`."""


class AgreementReport(Response):
    """A teacher's similarity of true against shuffled pairs."""

    teacher: str
    pairs: int
    auc: float
    """Probability that a true pair is more similar than a shuffled one; 0.5: the captions do not describe the images."""
    true_mean: float
    shuffled_mean: float
    bins: list[float] = []
    """Edges of the histogram, one more than the counts."""
    true_counts: list[int] = []
    shuffled_counts: list[int] = []


class DatasetReport(Response):
    """The findings of reading a data set, the most serious first, and its statistics."""

    samples: int
    usable: int
    findings: list[Finding]
    caption_stats: CaptionStatistics | None = None
    image_sizes: ImageSizes | None = None
    languages: dict[str, float] = {}
    """Shares of a sample of captions, by ISO 639-1 code; captions too short to determine it are `und`."""
    agreement: AgreementReport | None = None


class DatasetVersion(Response):
    """An immutable version: the index of its shards, and their report."""

    name: str
    version: int
    aliases: list[str] = []
    samples: int
    """All samples in the shards."""
    pairs: int
    """Samples that training reads: usable, not held out, and as `where` demands."""
    shards: int
    bytes: int
    digest: str
    """SHA-256 over the digests of the shards and the settings: equal for equal data."""
    report_digest: str = ""
    """SHA-256 over `digest` and what the report was made with: teacher, evaluation tasks, image size."""
    source: DatasetSource
    holdout: float = 0.0
    compressed: bool = False
    """True if shards are compressed: resuming reads them from their beginning."""
    caption_stats: CaptionStatistics | None = None
    image_sizes: ImageSizes | None = None
    findings: dict[str, int] = {}
    """Counts of the report's findings by code."""
    actions: list[DatasetVersionAction] = []
    """What the state of the data set allows to the caller now; `alias`: to set aliases to this version, and to remove them."""
    created_at: Timestamp

    def resolve(self, spec: JobSpec) -> JobSpec:
        """Return a job's spec with the shards, keys and holdout of this version, for the workers."""
        source = self.source
        settings = {
            "dataset": f"{self.name}@{self.version}", "shards": source.shards, "image_key": source.image_key,
            "caption_key": source.caption_key, "distinct_key": source.distinct_key, "holdout": self.holdout,
            "captions": source.captions, "languages": source.languages,
        }  # fmt: skip
        train = spec.data.train.model_copy(update=settings)
        return spec.model_copy(update={"data": spec.data.model_copy(update={"train": train})})


class SampleUse(StrEnum):
    TRAINING = "training"
    HELD_OUT = "held_out"
    EXCLUDED = "excluded"
    """It does not meet `where`."""
    UNUSABLE = "unusable"
    """It has no readable image or no caption; `problem` has the reason."""


class DatasetSample(Response):
    """One sample in the index of a version."""

    number: int
    """Its place among all samples of the version, counted from 0."""
    key: str
    shard: str
    offset: int
    length: int
    captions: list[str]
    """Those in its shard, and those that were joined to them; shortened."""
    width: int
    height: int
    use: SampleUse
    problem: str | None = None
    """Why it is unusable."""
    unread: str | None = None
    """Why its captions could not be read from the shard."""


DATACOMPDR_AUGMENT = ImageAugmentation(crop_scale=(0.08, 1.0))
"""Crops of DataCompDR, of torchvision's `RandomResizedCrop` by default; its RandAugment is stored with the views."""


class ReinforcementPost(Request):
    """A request to store teachers' embeddings of several views of every image, and of every caption."""

    teacher: TeacherSpec | None = None
    teachers: list[WeightedTeacher] = Field(default=[], max_length=100)
    """Several teachers, instead of `teacher`."""
    augmentations: int = Field(default=5, ge=1, le=100)
    """Views of each image (K). Epoch e trains on view e modulo K."""
    augment: ImageAugmentation = ImageAugmentation()
    embeddings: Literal["compute", "datacompdr"] = "compute"
    """`datacompdr`: take views and embeddings from the shards, which have them in the layout of DataCompDR, instead of computing
    them. The teachers are those that have computed them, in their order, and `augment` is that of DataCompDR."""
    captions: Literal["all", "first"] = "all"
    dtype: Literal["bf16", "fp32", "int8"] = "bf16"
    """The type of the stored embeddings."""
    dry_run: bool = False
    """Report what a reinforcement would cost and save; nothing is stored."""

    @model_validator(mode="after")
    def _has_teachers(self) -> Self:
        if (self.teacher is None) == (not self.teachers):
            raise ValueError("give either teacher or teachers")
        if self.embeddings == "datacompdr":
            if self.augment not in (ImageAugmentation(), DATACOMPDR_AUGMENT):
                raise ValueError("the views are those of the shards; omit augment")
            self.augment = DATACOMPDR_AUGMENT
        return self

    def every_teacher(self) -> list[WeightedTeacher]:
        """Return all teachers with weights."""
        return [WeightedTeacher(**self.teacher.model_dump())] if self.teacher else self.teachers


class ReinforcementState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETING = "deleting"

    @property
    def terminal(self) -> bool:
        """True when the embeddings are stored, or there is a reason why not."""
        return self in (ReinforcementState.SUCCEEDED, ReinforcementState.FAILED)


class ReinforcementCost(Response):
    """Measured on a few samples of the data set, on the machine that computed the plan."""

    views: int
    texts: int
    """Distinct texts; each is stored once."""
    bytes: int
    seconds: float
    """CPU or GPU seconds of the teachers."""
    teacher_share: float
    """Share of a training step that the teachers take, which reinforcement saves."""
    epochs_to_pay: float
    """Epochs after which the time saved exceeds the time spent."""


ReinforcementAction = Literal["train", "retry", "delete"]
"""`retry`: to request it again."""


class Reinforcement(Response):
    id: str
    dataset: str
    version: int
    state: ReinforcementState
    teachers: list[str]
    augmentations: int
    augment: ImageAugmentation
    captions: Literal["all", "first"]
    dtype: str
    views: int = 0
    texts: int = 0
    bytes: int = 0
    progress: float = 0.0
    message: str = ""
    error: DatasetError | None = None
    ray_submission_id: str | None = None
    actions: list[ReinforcementAction] = []
    """What the state allows to the caller now."""
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None = None
