"""Plans of stages: each stage's student, checked against its parent and teacher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinyclip.schemas import JobSpec, Layout, PlannedStage, StudentSummary
from tinyclip.schemas.layouts import AnyLayout, Architecture
from tinyclip.schemas.spec import ImageTower, StageSpec, StudentSpec, TextTower, TrainLength

from tinyclip_workers.inheritance.leading import ImpossibleInheritance, inheritance_problems
from tinyclip_workers.inheritance.students import selection_problems
from tinyclip_workers.model.architecture import try_layout, with_logit_bias
from tinyclip_workers.model.layouts import VOCAB_SIZE, ImpossibleStudent
from tinyclip_workers.model.libraries.own_towers import own_layout
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.cost import stage_hours
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.memory import check_memory
from tinyclip_workers.plan.prune import check_prune, check_prune_step, estimated_layout
from tinyclip_workers.plan.tokenizer import vocabulary_size
from tinyclip_workers.training.stage import not_inheritable, sizes_to_take, steps_of, with_vocab_size


def plan_stages(
    spec: JobSpec,
    teachers: Sequence[AnyLayout],
    samples: int,
    device: Literal["cpu", "cuda"],
    diagnostics: Diagnostics,
    *,
    teachers_tokenizer: bool = False,
    parent: AnyLayout | None = None,
) -> list[PlannedStage]:
    """Plan the stages, up to the first student that cannot be built. Students inherit from the first of several teachers.

    `parent`: that of the model of `inherit_from`, in place of the teacher; `teachers_tokenizer`: students have the tokenizer of
    the model that they inherit from, which is not CLIP's.
    """
    planned: list[PlannedStage] = []
    teacher = parent or (teachers[0] if teachers else None)
    if teacher is not None and spec.inherits_from_teacher:
        teacher = own_layout(teacher) or teacher
    vocab_size = vocabulary_size(spec, diagnostics)
    if isinstance(teacher, Layout) and vocab_size is not None:  # as students inherit from it
        teacher = with_vocab_size(teacher, vocab_size)
    chain = _Chain(teacher, vocab_size, teachers_tokenizer)
    teacher_macs = [summarize(layout).macs for layout in teachers]
    for index, stage in enumerate(spec.stages):
        student = _student(spec, index, stage, chain, diagnostics)
        if student is None:
            break
        parent = chain.parent if stage.inherit != "none" and chain.parent is not None else student.layout
        planned.append(_planned(spec, index, student, samples, device, teacher_macs, parent))
        largest = chain.parent if stage.prune is not None and chain.parent is not None else student.layout
        check_memory(spec, stage, largest, device, diagnostics)
        _check_length(planned[-1], stage, chain.before, spec, parent, diagnostics)
        _check_embedding_sizes(spec, index, student.layout, diagnostics)
        chain.add(stage, student)
    return planned


@dataclass
class _Chain:
    """The model that the next stage inherits from. After an automatic stage it is an estimate."""

    parent: AnyLayout | None
    vocab_size: int | None = None
    """Of the tokenizer that the job gives its students."""
    teachers_tokenizer: bool = False
    estimated: bool = False
    original: Layout | None = None
    """The model before the automatic stages that led to the parent; None if the parent is not from one."""
    before: StageSpec | None = None

    def add(self, stage: StageSpec, student: StudentSummary) -> None:
        parent = self.parent if isinstance(self.parent, Layout) else None
        self.original = (self.original or parent) if stage.prune is not None else None
        self.parent, self.estimated, self.before = student.layout, student.estimated, stage


def _student(
    spec: JobSpec, index: int, stage: StageSpec, chain: _Chain, diagnostics: Diagnostics
) -> StudentSummary | None:
    """Return the stage's student, or None if it cannot be built."""
    if stage.inherit != "none" and isinstance(chain.parent, Architecture):
        diagnostics.error(f"/stages/{index}/inherit", stage.inherit, not_inheritable(chain.parent))
        return None
    if stage.prune is not None:
        assert isinstance(chain.parent, Layout)  # the spec's schema requires a teacher here
        if not check_prune(index, stage.prune, chain.parent, chain.before, diagnostics, estimated=chain.estimated):
            return None
        layout = estimated_layout(stage.prune, chain.parent, chain.original or chain.parent)
        return summarize(layout).model_copy(update={"estimated": True})
    reads_siglips_tokens = chain.teachers_tokenizer and isinstance(chain.parent, Layout) and chain.parent.is_siglip
    if stage.inherit == "none" and reads_siglips_tokens:
        message = "random weights cannot follow a student with towers like SigLIP's; inherit, or train it in a job of its own"
        diagnostics.error(f"/stages/{index}/inherit", stage.inherit, message)
        return None
    assert stage.student is not None  # the schema requires it
    found = _layout(stage.student, sizes_to_take(spec, stage, chain.parent), index, diagnostics)
    if found is None:
        return None
    if chain.vocab_size is not None:
        if isinstance(found, Architecture):
            message = f"a {found.family} has the tokenizer of its own architecture; omit it, or use a plain CLIP as student"
            diagnostics.error("/tokenizer", spec.tokenizer.model_dump(exclude_none=True) if spec.tokenizer else None, message)
            return None
        found = with_vocab_size(found, chain.vocab_size)
    if stage.inherit == "manual" and chain.parent is not None:
        if isinstance(found, Architecture):
            message = f"a student like {found.family} has other towers than the model it inherits from; use inherit: none"
            diagnostics.error(f"/stages/{index}/inherit", stage.inherit, message)
            return None
        _check_inheritance(index, stage, stage.student, found, chain, diagnostics)
    _check_tokens(spec, index, stage.student, found, chain, diagnostics)
    _check_student(spec, found, diagnostics)
    # A student whose layout takes nothing from an estimated parent is exact.
    estimated = chain.estimated and try_layout(stage.student, None)[0] != found
    if (stage.objective or spec.objective).uses_logit_bias():
        found = with_logit_bias(found)
    return summarize(found).model_copy(update={"estimated": estimated})


def resolve_stage_spec(stage: StageSpec, planned: PlannedStage, *, own_tokenizer: bool = False) -> StageSpec:
    """Return the stage with its length in steps and all fields of its student, if the spec can express them.

    `own_tokenizer`: the vocabulary is that of the job's tokenizer.
    """
    stage = stage.model_copy(update={"train": TrainLength(steps=planned.steps)})
    layout = planned.student.layout
    if stage.student is None or planned.student.estimated or isinstance(layout, Architecture) or not layout.has_equal_blocks:
        return stage
    image, text = layout.image, layout.text
    vit = image.kind == "vit"
    student = StudentSpec(
        embed_dim=layout.embed_dim,
        quick_gelu=layout.quick_gelu,
        image=ImageTower(
            layers=image.layers[0] if vit else (image.layers[0], image.layers[1], image.layers[2], image.layers[3]),
            width=image.width,
            head_width=image.head_width,
            mlp_ratio=image.mlp[0] / image.width if image.mlp else None,
            patch_size=image.patch_size,
            image_size=image.image_size,
        ),
        text=TextTower(
            layers=text.layers,
            width=text.width,
            heads=text.heads[0],
            mlp_ratio=text.mlp[0] / text.width,
            context_length=text.context_length,
            vocab_size=None if own_tokenizer else text.vocab_size,
        ),
    )
    return stage.model_copy(update={"student": student})


def _layout(student: StudentSpec, parent: AnyLayout | None, index: int, diagnostics: Diagnostics) -> AnyLayout | None:
    layout, problems = try_layout(student, parent)
    for problem in problems:
        _report(index, student, problem, diagnostics)
    return layout


def _check_inheritance(
    index: int, stage: StageSpec, student: StudentSpec, layout: Layout, chain: _Chain, diagnostics: Diagnostics
) -> None:
    """Check that the student fits into its parent; problems with an estimated parent are warnings."""
    assert isinstance(chain.parent, Layout)
    problems = Diagnostics() if chain.estimated else diagnostics
    for problem in inheritance_problems(layout, chain.parent):
        _report(index, student, problem, problems)
    for problem in selection_problems(layout, chain.parent) if stage.select == "importance" else ():
        _report(index, student, problem, problems)
    for error in problems.errors if chain.estimated else ():
        diagnostics.warn(f"{error.pointer} may not fit the student of the automatic stage before (an estimate): {error.message}")
    if layout == chain.parent and stage.inherit_from is None:
        diagnostics.warn(f"stage {stage.name} builds a student no smaller than what it inherits from")


def _check_tokens(
    spec: JobSpec, index: int, student: StudentSpec, layout: AnyLayout, chain: _Chain, diagnostics: Diagnostics
) -> None:
    """Check that a student has an embedding of every token, unless its vocabulary is set by the job's own tokenizer."""
    tokens, whose = VOCAB_SIZE, "CLIP's"
    if chain.teachers_tokenizer and chain.parent is not None:
        tokens, whose = chain.parent.vocab_size, "the teacher's"
    if layout.vocab_size < tokens and spec.tokenizer is None:
        message = f"is less than the {tokens} tokens of {whose} tokenizer; leave it out"
        _report(index, student, ImpossibleStudent("text/vocab_size", layout.vocab_size, message), diagnostics)


def _check_student(spec: JobSpec, layout: AnyLayout, diagnostics: Diagnostics) -> None:
    if isinstance(layout, Architecture):
        if spec.compile:
            diagnostics.warn(f"compile has no effect on a student like {layout.family}, only on plain ViTs and text towers")
        return
    if spec.micro_batch is not None and layout.image.kind == "resnet":
        what = "auto processes the whole batch" if spec.micro_batch == "auto" else "uses the statistics of one part at a time"
        diagnostics.warn(f"micro_batch with a ResNet, which has batch normalisation: {what}")
    if (spec.gradient_checkpointing or spec.compile) and layout.image.kind == "resnet":
        diagnostics.warn("gradient_checkpointing and compile have no effect on a ResNet, only on the blocks of transformers")


def _check_embedding_sizes(spec: JobSpec, index: int, layout: AnyLayout, diagnostics: Diagnostics) -> None:
    """Check that a student can have nested embeddings, and that their sizes are not larger than the whole."""
    stage, reported = spec.stages[index], {error.pointer for error in diagnostics.errors}  # stages may share the objective
    sizes = (stage.objective or spec.objective).embedding_sizes
    pointer = ("/objective" if stage.objective is None else f"/stages/{index}/objective") + "/embedding_sizes"
    if sizes and isinstance(layout, Architecture) and pointer not in reported:
        message = f"needs a plain CLIP student, and that of stage {stage.name} is a {layout.family}; remove it"
        diagnostics.error(pointer, sizes, message)
    for place, size in enumerate(sizes):
        if size > layout.embed_dim and (at := f"{pointer}/{place}") not in reported:
            message = f"is more than the {layout.embed_dim} numbers of the embeddings of stage {stage.name}; remove it"
            diagnostics.error(at, size, message)


def _report(
    index: int, student: StudentSpec, problem: ImpossibleStudent | ImpossibleInheritance, diagnostics: Diagnostics
) -> None:
    """Add a student's problem as an error at the field that the user wrote: the preset, if there is one."""
    field = problem.field.replace(".", "/")
    if student.preset is not None:
        at = "" if field == "preset" else f"{student.preset} does not fit: {field} "
        diagnostics.error(f"/stages/{index}/student/preset", student.preset, f"{at}{problem.message}")
        return
    field = "image/width" if field == "image/heads" else field
    pointer = f"/stages/{index}/student/{field}"
    if all(error.pointer != pointer for error in diagnostics.errors):  # one error for each field
        diagnostics.error(pointer, _written_value(student, field, problem.value), problem.message)


def _written_value(student: StudentSpec, field: str, otherwise: object) -> Any:
    """Return the user's value of a field of the student, or `otherwise` if there is none."""
    value: Any = student.model_dump(mode="json")
    for part in field.split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    return value if value is not None else otherwise


def _planned(
    spec: JobSpec, index: int, student: StudentSummary, samples: int, device: str, teacher_macs: list[int], parent: AnyLayout
) -> PlannedStage:
    stage = spec.stages[index]
    batch_size = stage.batch_size or spec.batch_size
    steps = steps_of(stage.train, batch_size, samples)
    return PlannedStage(
        index=index,
        name=stage.name,
        inherit=stage.inherit,
        steps=steps,
        samples=steps * batch_size,
        student=student,
        device_hours=stage_hours(spec, index, steps, student, parent, teacher_macs, device),
        lr=(stage.optimizer or spec.optimizer).lr,
        select=stage.select if stage.inherit == "manual" else None,
        search=stage.prune.search if stage.prune is not None else None,
    )


def _check_length(
    planned: PlannedStage, stage: StageSpec, before: StageSpec | None, spec: JobSpec, parent: AnyLayout, diagnostics: Diagnostics
) -> None:
    optimizer, prune = stage.optimizer or spec.optimizer, stage.prune
    if prune is not None and isinstance(parent, Layout):
        check_prune_step(planned.index, stage, before, planned.steps, optimizer, parent, diagnostics)
    own = prune is not None and prune.warmup_steps is not None
    warmup = prune.warmup_steps if prune is not None and prune.warmup_steps is not None else optimizer.warmup_steps
    steps = planned.steps - (prune.cut_step if prune is not None else 0)
    if 0 < steps <= warmup:
        diagnostics.warn(
            f"stage {stage.name} has {steps} steps{' after its cut' if prune else ''}, all of them inside the warm-up of "
            f"{warmup}: it never trains at its full learning rate; lower {'prune' if own else 'optimizer'}.warmup_steps"
        )
