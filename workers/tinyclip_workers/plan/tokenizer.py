"""Checks of the tokenizer that a job gives its students, and the size of its vocabulary."""

from tinyclip.schemas import JobSpec

from tinyclip_workers.model.tokenizers import TokenizerError
from tinyclip_workers.model.vocabularies.tokenizer_folder import read_tokenizer
from tinyclip_workers.model.vocabularies.vocabulary_change import vocabulary_of
from tinyclip_workers.plan.diagnostics import Diagnostics


def vocabulary_size(spec: JobSpec, diagnostics: Diagnostics) -> int | None:
    """Return the tokens of the students' tokenizer, at most; None without one, or if it cannot be read, which is an error."""
    if spec.tokenizer is None:
        return None
    if spec.stages[0].inherit != "none":
        diagnostics.warn(
            "the token embedding is not inherited row by row: a token of the students' tokenizer starts as the same token of the "
            "teacher; else as those that it stands for in translated captions, or that make up its text; else at random"
        )
    if spec.tokenizer.train is not None:
        return spec.tokenizer.train.vocab_size
    folder = spec.tokenizer.folder
    assert folder is not None, "the schema requires one of the two"
    diagnostics.begin("/tokenizer/folder", folder, "reading the tokenizer")
    try:
        return len(vocabulary_of(read_tokenizer(folder)))
    except TokenizerError as error:
        diagnostics.error("/tokenizer/folder", folder, str(error))
    return None
