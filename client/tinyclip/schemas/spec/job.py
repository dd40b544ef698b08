"""The whole job spec, its teachers and its resources."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tinyclip.schemas._base import Labels, Request
from tinyclip.schemas.addresses import Address, ModelName, Weights
from tinyclip.schemas.spec.data import DataSpec, EvaluationSpec, Language, Name
from tinyclip.schemas.spec.stages import DEFAULT_OBJECTIVE, Averaging, Objective, OptimizerSpec, StageSpec, Temperature
from tinyclip.schemas.vocabulary import VocabularyChoice


class TeacherSpec(Request):
    """The source of a teacher."""

    model: ModelName
    """open_clip architecture | hf-hub:ORG/NAME | local-dir:PATH_OR_URI | registry:NAME@ALIAS_OR_VERSION."""
    pretrained: Weights | None = None
    """An open_clip tag, or the path or URI of weights; omitted for the last three forms."""
    language: Language | None = None
    """The language of the captions that it reads, as `en`, while a student reads those of `data.train.languages`. None: it reads
    what the student reads."""


class WeightedTeacher(TeacherSpec):
    """One of several teachers."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its weight in the mean of affinities, relative to the others'."""


class TeacherAt(NamedTuple):
    """A teacher and its place in the spec."""

    pointer: str
    """A JSON pointer into the spec."""
    spec: TeacherSpec
    share: float
    """Its share of the mean of affinities; all shares add up to 1."""


class TokenizerTraining(Request):
    """Training of a byte-level byte-pair tokenizer on the captions. It keeps CLIP's tokens of the teacher's language."""

    vocab_size: int = Field(default=16_000, ge=1000, le=1_000_000)
    """Tokens, with those of single bytes. There may be fewer: as many as the captions have to merge."""


class TokenizerSpec(Request):
    """The tokenizer of students: exactly one of the two."""

    train: TokenizerTraining | None = None
    """Trained once, before the first stage, on as many captions of each language as of any other."""
    folder: Address | None = None
    """Path or URI of a folder with `tokenizer.json` and `tokenizer_config.json`; the end of a text has the largest id."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.train is None) == (self.folder is None):
            raise ValueError("give either train: {vocab_size: …} or folder: PATH_OR_URI")
        return self


class WorkerRange(Request):
    """An elastic worker group: as many workers as the cluster has room for, of those numbers over which the batch divides."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max {self.max} is less than min {self.min}; exchange them")
        return self


class Resources(Request):
    workers: Annotated[int, Field(ge=1)] | WorkerRange = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=1, ge=0.01, le=1)
    """Less than 1: a share of a GPU and of its memory, for a small training beside others; one worker only."""

    @model_validator(mode="after")
    def _one_worker_shares(self) -> Self:
        most = self.workers.max if isinstance(self.workers, WorkerRange) else self.workers
        if self.gpus_per_worker < 1 and most > 1:
            raise ValueError(f"a worker with gpus_per_worker {self.gpus_per_worker:g} trains alone: give workers: 1, not {most}")
        return self


class CheckpointSpec(Request):
    every_steps: int = Field(default=500, ge=1)
    keep: int = Field(default=3, ge=1)


class Timeouts(Request):
    """Limits in seconds that end what hangs. A job whose time is up fails with the code `time_limit`."""

    progress_seconds: float = Field(default=7200, gt=0, le=31_536_000, allow_inf_nan=False)
    """An attempt that writes no event for longer is stopped; the next one continues from the last checkpoint."""
    total_seconds: float | None = Field(default=None, gt=0, le=315_360_000, allow_inf_nan=False)
    """Time on the cluster, all attempts added up; null: no limit. Time in the queue and paused does not count."""


class JobSpec(Request):
    """Everything that determines the student. The minimum is name, teacher, data.train.shards and one stage."""

    spec_version: Literal[1] = 1
    name: Name
    labels: Labels = {}
    teacher: TeacherSpec | None = None
    """Omitted with `objective: {affinity: 0, contrastive: 1}`: a plain CLIP is trained."""
    teachers: list[WeightedTeacher] = Field(default=[], max_length=100)
    """Several teachers, instead of `teacher`. Students inherit from the first and are compared with it. It is the teacher of all
    terms but `affinity`, whose target is the weighted mean of all teachers' affinities."""
    data: DataSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    tokenizer: TokenizerSpec | None = None
    """The tokenizer and vocabulary of all students; None: those of the teacher that they inherit from, or CLIP's."""
    stages: list[StageSpec] = Field(min_length=1, max_length=100)
    objective: Objective = DEFAULT_OBJECTIVE
    temperature: Temperature = Temperature()
    optimizer: OptimizerSpec = OptimizerSpec()
    averaging: Averaging | None = None
    """None: the last weights are exported."""
    vocabulary: VocabularyChoice = VocabularyChoice.WHOLE
    """`reduced`: the model version has only the tokens of the training captions and evaluation tasks (docs/exports.md)."""
    batch_size: int = Field(default=256, ge=1)
    """The global batch size, over all workers."""
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Pairs that a worker processes at once; the gradient is that of the whole batch. Costs one more forward pass. null: the
    whole local batch. `auto`: as many as fit into the GPU's memory, which each stage measures at its start."""
    gradient_checkpointing: bool = False
    """Compute the blocks of transformers again in the backward pass instead of keeping what they computed: less memory, about a
    third more time, the same gradient."""
    compile: bool = False
    """Compile the blocks of transformers (`torch.compile`): a minute at the start, faster steps on GPUs, other rounding."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 if the training machines are faster with it, else fp32; each stage measures at its start. On GPUs `fp32` is
    exact; with the others, products of fp32 may be rounded to TF32."""
    resources: Resources = Resources()
    checkpoint: CheckpointSpec = CheckpointSpec()
    max_attempts: int = Field(default=3, ge=1, le=100)
    timeouts: Timeouts = Timeouts()
    seed: int = 0

    @property
    def inherits_from_teacher(self) -> bool:
        """True if students start with weights of the teacher or of `inherit_from`, the token embedding among them."""
        return self.stages[0].inherit != "none"

    @property
    def first_teacher(self) -> TeacherSpec | None:
        """The teacher, or the first of several; None without a teacher."""
        return self.teachers[0] if self.teachers else self.teacher

    @property
    def inherits_from(self) -> str | None:
        """The model that the first stage inherits from in place of the teacher."""
        return self.stages[0].inherit_from

    def every_teacher(self) -> list[TeacherAt]:
        """Return all teachers, the first one first."""
        total = sum(teacher.weight for teacher in self.teachers)
        several = [TeacherAt(f"/teachers/{i}", teacher, teacher.weight / total) for i, teacher in enumerate(self.teachers)]
        return several if self.teacher is None else [TeacherAt("/teacher", self.teacher, 1.0)]

    @model_validator(mode="after")
    def _vocabulary_of_tokenizer(self) -> Self:
        for index, stage in enumerate(self.stages if self.tokenizer is not None else []):
            if stage.student is not None and stage.student.text is not None and stage.student.text.vocab_size is not None:
                raise ValueError(f"stages.{index}.student.text.vocab_size is that of the tokenizer; omit it")
        return self

    @model_validator(mode="after")
    def _only_the_first_inherits_from_a_model(self) -> Self:
        for index, stage in enumerate(self.stages[1:], start=1):
            if stage.inherit_from is not None:
                raise ValueError(f"stages.{index} inherits from the stage before; only the first may have inherit_from")
        return self

    @model_validator(mode="after")
    def _teachers_read_captions(self) -> Self:
        train = self.data.train
        for teacher in self.every_teacher():
            language, here = teacher.spec.language, teacher.pointer.lstrip("/").replace("/", ".")
            if language is None:
                continue
            if train.reinforcement is not None:
                raise ValueError(f"{here}.language has no effect on stored embeddings, which are of all captions; omit it")
            of_dataset = train.dataset is not None and not train.languages  # found by the plan
            if not of_dataset and language not in train.languages:
                known = f"one of {', '.join(train.languages)}" if train.languages else "add data.train.languages"
                raise ValueError(f"{here}.language {language} is none of the languages of the captions; {known}")
        return self

    @model_validator(mode="after")
    def _teachers_match_objectives(self) -> Self:
        if self.teacher is not None and self.teachers:
            raise ValueError("give either teacher or teachers, not both; the first of teachers is the one to inherit from")
        if self.first_teacher is not None:
            return self
        for index, stage in enumerate(self.stages):
            terms = (stage.objective or self.objective).teacher_terms()
            if terms:
                what = "mimics a teacher's affinity" if terms == ["affinity"] else f"has {terms[0]} in its objective"
                raise ValueError(
                    f"stage {index} ({stage.name}) {what} but the spec has no teacher; "
                    "add teacher: {model: …} or set objective: {contrastive: 1}"
                )
            if index == 0 and stage.inherit != "none" and stage.inherit_from is None:
                raise ValueError("stage 0 inherits from the teacher but the spec has none; add teacher or use inherit: none")
        return self
