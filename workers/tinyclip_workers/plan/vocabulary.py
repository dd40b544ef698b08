"""Check the vocabularies of a plan: teachers need the whole one, and only CLIP's can be reduced."""

from collections.abc import Sequence

from tinyclip.schemas import JobSpec, PlannedStage, VocabularyChoice

from tinyclip_workers.model.files.folders import ModelSource
from tinyclip_workers.model.files.sources import PARENT
from tinyclip_workers.model.layouts import VOCAB_SIZE
from tinyclip_workers.model.tokenizers import TokenizerError, is_reduced
from tinyclip_workers.plan.diagnostics import Diagnostics


def check_vocabularies(
    spec: JobSpec,
    teachers: Sequence[ModelSource | None],
    stages: Sequence[PlannedStage],
    diagnostics: Diagnostics,
    parent: ModelSource | None = None,
) -> None:
    """Check the teachers (None: unusable), the model of `inherit_from` and the last student."""
    if parent is not None and _has_reduced_vocabulary(parent):
        message = f"has a reduced vocabulary of {parent.layout.vocab_size:,} tokens; use the version with the whole one"
        diagnostics.error(PARENT, spec.inherits_from, message)
    for at, teacher in zip(spec.every_teacher(), teachers, strict=True):
        if teacher is not None and _has_reduced_vocabulary(teacher):
            message = f"has a reduced vocabulary of {teacher.layout.vocab_size:,} tokens; use the version with the whole one"
            diagnostics.error(f"{at.pointer}/model", at.spec.model, message)
    if spec.vocabulary is not VocabularyChoice.REDUCED or not stages:
        return
    size, first = stages[-1].student.layout.vocab_size, parent or (teachers[0] if teachers else None)
    if spec.tokenizer is not None:
        message = "only the vocabulary of CLIP's tokenizer can be reduced, and tokenizer gives another one; omit one of the two"
        diagnostics.error("/vocabulary", spec.vocabulary, message)
    elif size != VOCAB_SIZE or (spec.inherits_from_teacher and first is not None and first.tokenizer is not None):
        message = f"only the {VOCAB_SIZE:,} tokens of CLIP's tokenizer can be reduced, the student has {size:,}; omit it"
        diagnostics.error("/vocabulary", spec.vocabulary, message)


def _has_reduced_vocabulary(teacher: ModelSource) -> bool:
    try:
        return is_reduced(teacher.tokenizer)
    except TokenizerError:  # loading it reports this
        return False
