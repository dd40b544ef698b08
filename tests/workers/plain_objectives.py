"""The published terms written out in numpy, one row and column at a time, for comparison with the engine's.

Where a publication stops the gradient, the student's embeddings are given twice: to be differentiated, and as `frozen`.
N rows of unit length, E the teacher's embedding size, K clusters.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Pair(NamedTuple):
    """Images and texts of one model, (N, E)."""

    image: Array
    text: Array


def log_softmax(logits: Array) -> Array:
    return logits - np.log(sum(np.exp(logit) for logit in logits))


def similarities(row: Array, columns: Array, scale: float) -> Array:
    return np.array([scale * sum(a * b for a, b in zip(row, column, strict=True)) for column in columns])


def info_nce(rows: Array, columns: Array, scale: float) -> float:
    return float(np.mean([-log_softmax(similarities(row, columns, scale))[i] for i, row in enumerate(rows)]))


def divergence(rows: Array, columns: Array, scale: float, of: tuple[Array, Array]) -> float:
    """Return KL(of || rows with columns), a mean over rows."""
    found = []
    for row, target_row in zip(rows, of[0], strict=True):
        log_p, log_target = log_softmax(similarities(row, columns, scale)), log_softmax(similarities(target_row, of[1], scale))
        found.append(sum(np.exp(t) * (t - p) for t, p in zip(log_target, log_p, strict=True)))
    return float(np.mean(found))


def feature_mimicry(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    total = 0.0
    for mine, other in zip(own, theirs, strict=True):
        total += sum((a - b) ** 2 for a, b in zip(mine.flatten(), other.flatten(), strict=True)) / len(mine)
    return 2000 / 512 * total


def cosine(a: Array, b: Array) -> float:
    return float(sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)))


def inheritance(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    total = 0.0
    for mine, other in zip(own, theirs, strict=True):
        half = mine.shape[1] // 2
        total += np.mean([1 - cosine(a[:half], b[:half]) for a, b in zip(mine, other, strict=True)])
    return float(total)


def exploration(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    total = 0.0
    for mine, other in zip(own, theirs, strict=True):
        half = mine.shape[1] // 2
        total += np.mean([abs(cosine(a[half:], b[half:])) for a, b in zip(mine, other, strict=True)])
    return float(total)


def interactive_contrastive(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    return (info_nce(own.image, theirs.text, scale) + info_nce(own.text, theirs.image, scale)) / 2


def vertical_relational(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    student_to_teacher = divergence(own.image, theirs.image, scale, of=(frozen.text, theirs.text))
    teacher_to_student = divergence(theirs.image, own.image, scale, of=(theirs.text, frozen.text))
    images = (info_nce(own.image, theirs.image, scale) + info_nce(theirs.image, own.image, scale)) / 2
    texts = (info_nce(own.text, theirs.text, scale) + info_nce(theirs.text, own.text, scale)) / 2
    return (student_to_teacher + teacher_to_student) / 2 + images + texts


def cross_relational(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    four = [
        divergence(theirs.image, own.text, scale, of=(theirs.text, frozen.image)),
        divergence(theirs.text, own.image, scale, of=(theirs.image, frozen.text)),
        divergence(own.text, theirs.image, scale, of=(frozen.image, theirs.text)),
        divergence(own.image, theirs.text, scale, of=(frozen.text, theirs.image)),
    ]
    return sum(four) / 4


def cluster_instance(own: Pair, frozen: Pair, theirs: Pair, scale: float, clusters: Array) -> float:
    found = []
    for mine, other in zip(own.image, theirs.image, strict=True):
        distances = [np.sum((other - center) ** 2) for center in clusters]
        found.append(-log_softmax(similarities(mine, clusters, scale))[int(np.argmin(distances))])
    return float(np.mean(found)) + interactive_contrastive(own, frozen, theirs, scale, clusters)


def affinity(own: Pair, teachers: list[tuple[float, Pair, float]], scale: float) -> float:
    """Compute the affinity loss for several teachers, each with its share, embeddings and scale."""
    total = 0.0
    for rows, columns, flip in ((own.image, own.text, False), (own.text, own.image, True)):
        for i, row in enumerate(rows):
            target = np.zeros(len(rows))
            for share, pair, teacher_scale in teachers:
                their_rows, their_columns = (pair.text, pair.image) if flip else (pair.image, pair.text)
                target += share * np.exp(log_softmax(similarities(their_rows[i], their_columns, teacher_scale)))
            total -= float(sum(target * log_softmax(similarities(row, columns, scale)))) / len(rows) / 2
    return total


Term = Callable[[Pair, Pair, Pair, float, Array], float]
TERMS: dict[str, Term] = {
    "feature_mimicry": feature_mimicry,
    "inheritance": inheritance,
    "exploration": exploration,
    "interactive_contrastive": interactive_contrastive,
    "vertical_relational": vertical_relational,
    "cross_relational": cross_relational,
    "cluster_instance": cluster_instance,
}


def gradient(term: Term, own: Pair, theirs: Pair, scale: float, clusters: Array, step: float = 1e-6) -> Pair:
    """Compute central differences in every number of the student's embeddings."""
    found = Pair(np.zeros_like(own.image), np.zeros_like(own.text))
    for which in range(2):
        for place in np.ndindex(own[which].shape):
            ends = []
            for sign in (1, -1):
                moved = Pair(own.image.copy(), own.text.copy())
                moved[which][place] += sign * step
                ends.append(term(moved, own, theirs, scale, clusters))
            found[which][place] = (ends[0] - ends[1]) / (2 * step)
    return found
