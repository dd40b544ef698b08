"""Search across models: a student's texts for its teacher's images, and the reverse.

Shapes: N images, M texts, E embedding size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tinyclip_workers.evaluation import metrics

STUDENT_TEXTS, TEACHER_TEXTS = "student_texts", "teacher_texts"
"""Names in the results: the student's texts find the teacher's images, and the teacher's texts the student's images."""


@dataclass(frozen=True)
class SharedSpace:
    """A student whose embeddings can be compared with its teacher's, and the names of both among the models."""

    axes_EE: Tensor | None = None
    """The student's coordinates are the teacher's times this orthogonal matrix; None: the same."""
    student: str = "student"
    teacher: str = "teacher"


@dataclass(frozen=True)
class RetrievalSet:
    """The images and texts of a retrieval task, embedded by several models."""

    images_NE: Mapping[str, Tensor]
    texts_ME: Mapping[str, Tensor]
    texts_of_image: Sequence[Sequence[int]]
    """The rows of each image's captions."""


def across_models(found: RetrievalSet, shared: SharedSpace) -> dict[str, dict[str, Any]]:
    """Return R@1, R@5 and R@10 of texts that search the other model's images, and `share`: R@10 as a share of the teacher's own.

    For `STUDENT_TEXTS` and `TEACHER_TEXTS`; each has both directions, as `metrics.retrieval`.
    """
    axes_EE = shared.axes_EE
    image_NE, text_ME = (x[shared.teacher] for x in (found.images_NE, found.texts_ME))
    own = metrics.retrieval(image_NE, text_ME, found.texts_of_image)["text_to_image_r10"]
    if axes_EE is not None:
        image_NE, text_ME = image_NE @ axes_EE.to(image_NE), text_ME @ axes_EE.to(text_ME)
    pairs = {
        STUDENT_TEXTS: (image_NE, found.texts_ME[shared.student]),
        TEACHER_TEXTS: (found.images_NE[shared.student], text_ME),
    }
    scores = {name: metrics.retrieval(images, texts, found.texts_of_image) for name, (images, texts) in pairs.items()}
    return {name: {**found, "share": found["text_to_image_r10"] / own if own else None} for name, found in scores.items()}
