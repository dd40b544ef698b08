"""The images and texts of a query: their limits, and where each one was in the request."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyclip.validation import MAX_ERRORS

from tinyclip_workers.serving.problems import field_error, invalid_input
from tinyclip_workers.serving.queries.bodies import MAX_FILES
from tinyclip_workers.types import ImageInput

MAX_IMAGES = MAX_FILES
MAX_CHARACTERS = 10_000
"""Characters of one text; a model reads only the beginning of such a long one."""


@dataclass(frozen=True)
class Images:
    """The images of a request, and the JSON pointer to each."""

    images: Sequence[ImageInput]
    pointers: Sequence[str]


def form_image_pointers(count: int) -> list[str]:
    return ["/image"] if count == 1 else [f"/image/{i}" for i in range(count)]


def with_pointers(pointer: str, texts: str | Sequence[str]) -> list[tuple[str, str]]:
    """Return (pointer, text) of one text or of each text in a list."""
    return [(pointer, texts)] if isinstance(texts, str) else [(f"{pointer}/{i}", text) for i, text in enumerate(texts)]


def check_texts(texts: Sequence[tuple[str, str]]) -> None:
    """Check (pointer, text) pairs. Raises ProblemError for texts that are blank, far too long or not Unicode."""
    problems = [(pointer, text, problem) for pointer, text in texts if (problem := _text_problem(text))]
    if problems:
        raise invalid_input(*(field_error(*problem) for problem in problems[:MAX_ERRORS]), total=len(problems))


def _text_problem(text: str) -> str | None:
    if not text.strip():
        return "is blank; give a text"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text):,} characters, more than {MAX_CHARACTERS:,}; a model reads the first few dozen words only"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which is no Unicode text"
    return None
