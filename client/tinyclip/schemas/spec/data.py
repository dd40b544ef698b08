"""The data of a job spec: training pairs and evaluation tasks."""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from tinyclip.schemas._base import Key, Keys, Line, Lines, Request
from tinyclip.schemas.addresses import Address, Shards

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Names of jobs, stages, models, deployments and indexes: they become folders and URL parts."""

Templates = Annotated[list[Line], Field(max_length=1000, fail_fast=True)] | Address
Classes = Lines | Address


def _scalars(value: Any) -> Any:
    """Refuse the first value that is no scalar: a union reports four errors for each."""
    for key, each in value.items() if isinstance(value, dict) else ():
        if not isinstance(each, str | int | float):
            raise ValueError(f"the value of {str(key)[:50]} is not a text, a number, true or false")
    return value


Language = Annotated[str, StringConstraints(max_length=40, pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}$")]
"""A language tag, as `en` or `zh-Hant`."""
MAX_LANGUAGES = 64
Languages = Annotated[list[Language], Field(max_length=MAX_LANGUAGES)]


Item = TypeVar("Item")
ByLanguage = Annotated[dict[Language, Item], Field(min_length=1, max_length=MAX_LANGUAGES)]
OfAnyLanguage = Annotated[
    Annotated[Item, Tag("one")] | Annotated[ByLanguage[Item], Tag("by_language")],
    Discriminator(lambda value: "by_language" if isinstance(value, dict) else "one"),
]
"""One value, or a mapping of languages to values; an error is reported for one of them only."""


Conditions = Annotated[dict[Key, Line | int | float | bool], Field(max_length=100), BeforeValidator(_scalars)]


Share = Annotated[float, Field(ge=0)]


class ImageAugmentation(Request):
    """Augmentation of training images (METHOD section 8 is the default)."""

    crop_scale: tuple[Share, Share] = (0.9, 1.0)
    """Share of the image's area that a random crop keeps, of aspect ratio 3:4 to 4:3, drawn as by torchvision."""
    degrees: float = Field(default=0.0, ge=0, le=180)
    """Random rotation, either way."""
    translate: float = Field(default=0.0, ge=0, lt=1)
    """Random shift as a share of the side."""
    scale: tuple[float, float] | None = None
    """Random zoom of the affine transform; None: none."""
    color_jitter: float = Field(default=0.0, ge=0, le=1)
    """Strength of random brightness, contrast and saturation; a quarter of it for hue."""
    horizontal_flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a mirror image."""
    gray: float = Field(default=0.0, ge=0, le=1)
    """Probability of losing all colour."""


DatasetRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}@[a-z0-9][a-z0-9._-]{0,62}$")]
"""A version of a data set: NAME@VERSION_OR_ALIAS."""
ReinforcementId = Annotated[str, StringConstraints(pattern=r"^reinf_[a-z0-9]{16}$")]


class TrainData(Request):
    """Training pairs: a registered data set, or shards, which the job reads once before it trains."""

    shards: Shards | None = None
    """Brace lists and globs of WebDataset shards: local paths, s3://, http(s)://."""
    dataset: DatasetRef | None = None
    """A registered data set, instead of `shards`, as `emoji@1`; keys and `holdout` are those that it was registered with."""
    reinforcement: ReinforcementId | None = None
    """Stored teacher embeddings of the data set: no teacher runs in the training step."""
    samples: int | None = Field(default=None, ge=1, le=10**12)
    """Pairs in one epoch; None: counted once when the job starts."""
    image_key: Keys = ["jpg", "png", "webp", "jpeg"]
    caption_key: Key = "txt"
    """`txt`, or `json.FIELD`; where the field holds several captions, one is drawn each time. A mapping has them by language."""
    captions: Address | None = None
    """A file of more captions, joined by key: Parquet, or JSON lines of `{"key": …, "captions": […]}`; with languages,
    `captions` is a mapping, as `{"de": […], "ja": […]}`. Of a data set, which has a file of its own, this is not given."""
    languages: Languages = []
    """Languages of the captions: every batch has as many pairs of each as of any other, up to one. The first is that of captions
    without a language. Empty: languages are not distinguished."""
    distinct_key: Key | None = None
    """`json.FIELD`: no two pairs of one batch share its value (two images of one concept are not negatives)."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of pairs, chosen by a hash of their key, that training never sees; a task with `subset: holdout` reads them."""
    augment: ImageAugmentation = ImageAugmentation()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.shards is None) == (self.dataset is None):
            raise ValueError("give either shards or dataset")
        if self.dataset is not None and self.samples is not None:
            raise ValueError("samples is known for a data set; omit it")
        if self.dataset is not None and self.captions is not None:
            raise ValueError("captions are joined when a data set is registered; omit it, or give shards instead of dataset")
        if len(set(self.languages)) < len(self.languages):
            raise ValueError("languages names one twice; remove the repetition")
        if self.reinforcement is not None and self.dataset is None:
            raise ValueError("a reinforcement belongs to a data set; give dataset instead of shards")
        return self

    @property
    def patterns(self) -> list[str]:
        """The patterns of `shards`: those of its data set in a resolved spec (`DatasetVersion.resolve`)."""
        return [self.shards] if isinstance(self.shards, str) else self.shards or []


class DataSpec(Request):
    train: TrainData
    shuffle: int = Field(default=10_000, ge=0)
    """Pairs of all workers together that are drawn from at any time; 0: every epoch has the same order."""
    shuffle_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Limit of the memory of all workers together for pairs that are held to draw from. A loader process may hold 256 MB."""


class _Task(Request):
    name: Name
    shards: Shards
    """Like `data.train.shards`, or a folder in CLIP_benchmark's layout: a split, or the root for its `test` split."""
    image_key: Keys = ["jpg", "png", "webp", "jpeg"]
    subset: Literal["all", "holdout"] = "all"
    """`holdout` reads only the pairs that `data.train.holdout` keeps from training."""
    where: Conditions = {}
    """Only samples whose JSON has these values, as `{seen_concept: false}`."""

    def result_languages(self) -> list[str]:
        """Return the languages that the task is evaluated in; none for a task that does not distinguish them."""
        return []

    def result_names(self) -> list[str]:
        """Return the names of its results: its own, or one for each language."""
        return [self.result_name(language) for language in self.result_languages()] or [self.name]

    def result_name(self, language: str) -> str:
        return f"{self.name}.{language.lower()}"


class ZeroShotTask(_Task):
    kind: Literal["zero_shot"]
    classes: OfAnyLanguage[Classes] | None = None
    """A list, or the path or URI of a file with one class per line (or a JSON list); None: those of CLIP_benchmark's layout.
    A mapping has them by language: the task is evaluated in each, with a result named TASK.LANGUAGE."""
    templates: OfAnyLanguage[Templates] | None = None
    """Prompts with {} for the class name; None: those of CLIP_benchmark's layout, else `a photo of a {}.` A mapping has them by
    language, as `classes`."""
    label_key: Key = "cls"
    """`cls` (a file of the sample with the class number) or `json.FIELD`."""

    def result_languages(self) -> list[str]:
        return list(self.classes) if isinstance(self.classes, dict) else []

    @model_validator(mode="after")
    def _same_languages(self) -> Self:
        if isinstance(self.templates, dict):
            known = set(self.classes) if isinstance(self.classes, dict) else set()
            if known != set(self.templates):
                raise ValueError("templates has other languages than classes; give both as mappings of the same ones")
        return self


class RetrievalTask(_Task):
    kind: Literal["retrieval"]
    caption_key: Key = "txt"
    """`txt` (a file of the sample with one caption per line) or `json.FIELD` (a text or a list of them, or these by language)."""
    captions: Address | None = None
    """A file of captions in further languages, joined by key, as `data.train.captions`."""
    languages: Languages = []
    """The task is evaluated in each of these languages, with a result named TASK.LANGUAGE: only samples with a caption in it.
    The first is that of captions without a language. Empty: all captions under `caption_key` are used."""

    def result_languages(self) -> list[str]:
        return self.languages

    @model_validator(mode="after")
    def _captions_by_language(self) -> Self:
        if self.captions is not None and not self.languages:
            raise ValueError("captions are by language; give languages, as [en, de]")
        if len(set(self.languages)) < len(self.languages):
            raise ValueError("languages names one twice; remove the repetition")
        return self


class LinearProbeTask(_Task):
    kind: Literal["linear_probe"]
    train_shards: Shards | None = None
    """Training data of the probe; None: the `train` split of CLIP_benchmark's layout."""
    label_key: Key = "cls"


EvaluationTask = Annotated[ZeroShotTask | RetrievalTask | LinearProbeTask, Field(discriminator="kind")]


class EvaluationSpec(Request):
    every_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations; None: only at the end of each stage."""
    tasks: list[EvaluationTask] = Field(default=[], max_length=200)
