"""The vocabulary of a model and its table of embeddings."""

from enum import StrEnum

from tinyclip.schemas._base import Response

CLIP_TOKENS = 49408
"""The vocabulary of CLIP's tokenizer, the only one that can be reduced."""


class VocabularyChoice(StrEnum):
    WHOLE = "whole"
    REDUCED = "reduced"
    """Only the tokens of the texts that a model was trained and evaluated with (docs/exports.md)."""


class EmbeddingType(StrEnum):
    """The type of the token embedding in a file."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    """With a scale for each row."""


class VocabularyReport(Response):
    """A reduced vocabulary, and what it leaves out."""

    tokens: int
    """Tokens that are kept, with the parts that they are merged from and all single bytes."""
    of: int
    """Tokens of the whole vocabulary."""
    bytes_saved: int
    """Of the token embedding, in the type that the files have."""
    texts: int
    """Captions of the training data and prompts of the evaluation tasks whose tokens are kept."""
    evaluation_texts: int = 0
    """Different captions of evaluation tasks. Their tokens are kept too."""
    exact_share: float | None = None
    """Share of these whose tokens training captions and prompts have too: what to expect of new texts like them. null: none."""
