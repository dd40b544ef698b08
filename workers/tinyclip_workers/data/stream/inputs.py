"""What several models read of one pair: its crop in the size of each, and its caption by the tokenizer of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tinyclip_workers.model.preprocessing import PixelInput

Tokenize = Callable[[str], Tensor]
"""Converts a text to token ids (context)."""


@dataclass(frozen=True)
class SingleTextTokenizer:
    """Adapter of a tokenizer of many texts to a single text; unlike a lambda it can be pickled."""

    tokenizer: Callable[[str], Tensor]
    """Returns (1, context_length) for one text."""

    def __call__(self, text: str) -> Tensor:
        return self.tokenizer(text)[0]


@dataclass(frozen=True)
class TextInput:
    """The tokens of a model."""

    tokenize: Tokenize
    trims: bool = True
    """True if tokens after the end of the text can be cut off: the model does not read them."""
    language: str | None = None
    """The language of the captions that it reads; None: that of the pair in its batch."""


@dataclass(frozen=True)
class TeacherInputs:
    """The forms of a pair that teachers read and the student does not."""

    pixels: Sequence[PixelInput] = ()
    texts: Sequence[TextInput] = ()
