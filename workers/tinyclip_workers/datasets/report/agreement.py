"""A teacher's agreement with the pairs, and what low agreement comes from.

Shapes: N pairs, E embedding size, K shuffles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import AgreementReport, Finding

from tinyclip_workers.datasets.report.duplicates import sample_place
from tinyclip_workers.datasets.report.rules import Severity, make_finding, part_of
from tinyclip_workers.datasets.scan.merging import Parts
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, example
from tinyclip_workers.datasets.teacher_sample import EncodedPairs
from tinyclip_workers.types import Matrix

SHUFFLES, BINS = 8, 20
LOW, LOWER = 0.75, 0.6
"""AUCs below which agreement is a warning and an error."""
MAX_SHIFT = 8
SHIFTED_AUC, SHIFTED_GAIN = 0.7, 0.15
"""AUC of shifted pairs, and how much higher it is than that of the true ones, if captions are shifted."""
SWAPPED_SHARE, SWAPPED_DEVIATIONS, SWAPPED_AUC = 0.65, 5.0, 0.6
"""Images that agree better with red and blue exchanged, how certain that is, and their AUC then, if channels are exchanged."""
MIN_PAIRS = 50
NEAR_EQUAL, NEAR_SHARE = 0.98, 0.01
ROWS_AT_ONCE = 512
EXPLAINED_BY = ("identical_captions", "wrong_caption_key", "black_images", "blank_images")
"""Errors that explain low agreement: it is no finding of its own then."""


@dataclass(frozen=True)
class Similarities:
    """Similarities of true pairs, and of images with captions of others."""

    true_N: NDArray[np.float32]
    shuffled_M: NDArray[np.float32]
    auc: float


def measure(pairs: EncodedPairs, teacher: str) -> tuple[AgreementReport, Similarities]:
    """Compare true with shuffled pairs."""
    found = _compare(pairs.image_NE, pairs.text_NE, pairs.caption_N)
    both = np.concatenate([found.true_N, found.shuffled_M])
    edges = np.linspace(float(both.min()), float(both.max()) + 1e-6, BINS + 1)
    report = AgreementReport(
        teacher=teacher, pairs=len(found.true_N), auc=round(found.auc, 4), true_mean=round(float(found.true_N.mean()), 4),
        shuffled_mean=round(float(found.shuffled_M.mean()), 4) if len(found.shuffled_M) else 0.0,
        bins=[round(float(edge), 4) for edge in edges],
        true_counts=np.histogram(found.true_N, edges)[0].tolist(),
        shuffled_counts=np.histogram(found.shuffled_M, edges)[0].tolist(),
    )  # fmt: skip
    return report, found


def agreement_findings(
    parts: Parts, pairs: EncodedPairs, report: AgreementReport, found: Similarities, others: Sequence[Finding]
) -> list[Finding]:
    """Return what the teacher's embeddings show. `others`: findings without a teacher, which may explain them. Raises OSError."""
    if report.pairs < MIN_PAIRS:
        return []
    findings = [_shifted(parts, pairs, found), _swapped(parts, pairs, found)]
    explained = any(findings) or any(each.severity == "error" and each.code in EXPLAINED_BY for each in others)
    if report.auc < LOW and not explained:
        findings.append(_low(parts, pairs, report, found))
    findings.append(_near_equal(parts, pairs))
    return [finding for finding in findings if finding is not None]


def _compare(image_NE: Matrix, text_NE: Matrix, caption_N: NDArray[np.uint64]) -> Similarities:
    """Pairs with equal captions are no shuffled pairs."""
    rng, shuffled = np.random.default_rng(0), [np.zeros(0, np.float32)]
    for _ in range(SHUFFLES):
        other_N = rng.permutation(len(image_NE))
        similar_N = (image_NE * text_NE[other_N]).sum(axis=1)
        shuffled.append(similar_N[caption_N != caption_N[other_N]])
    true_N, shuffled_M = (image_NE * text_NE).sum(axis=1), np.concatenate(shuffled)
    return Similarities(true_N, shuffled_M, area_under_curve(true_N, shuffled_M))


def area_under_curve(true_N: NDArray[np.float32], shuffled_M: NDArray[np.float32]) -> float:
    """Return the probability that a true pair is more similar than a shuffled one; 0.5 without any."""
    if not len(true_N) or not len(shuffled_M):
        return 0.5
    ordered = np.sort(shuffled_M)
    below, upto = np.searchsorted(ordered, true_N, "left"), np.searchsorted(ordered, true_N, "right")
    return float(((below + upto) / 2).mean() / len(ordered))


def _shifted(parts: Parts, pairs: EncodedPairs, found: Similarities) -> Finding | None:
    """Compare images with the captions of samples before and behind them."""
    best, best_auc, count = 0, found.auc + SHIFTED_GAIN, 0
    for shift in (sign * step for step in range(1, MAX_SHIFT + 1) for sign in (1, -1)):
        image, text = _shifted_pairs(pairs, shift)
        auc = area_under_curve((pairs.image_NE[image] * pairs.text_NE[text]).sum(axis=1), found.shuffled_M)
        if len(image) >= MIN_PAIRS and auc >= max(SHIFTED_AUC, best_auc):
            best, best_auc, count = shift, auc, len(image)
    if not best:
        return None
    where = f"{abs(best)} {'sample' if abs(best) == 1 else 'samples'} {'later' if best > 0 else 'earlier'}"
    message = f"captions are shifted: images agree with the caption {where} in the shard (AUC {best_auc:.2f} of {count:,} pairs)"
    message += f", but not with their own (AUC {found.auc:.2f})"
    remedy = "Write the shards again with each image beside its own caption; look for code that counts images and captions apart."
    total, examples = len(found.true_N), _examples(parts, pairs, list(range(MAX_EXAMPLES)), found)
    return make_finding("captions_shifted", "error", total, total, message, remedy, examples, estimated=True)


def _shifted_pairs(pairs: EncodedPairs, shift: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of images, and of the pairs whose captions lie `shift` usable samples behind them in the same run."""
    key_N = pairs.run_N * (1 << 20) + pairs.place_N
    position = np.searchsorted(key_N, key_N + shift)
    found = position < len(key_N)
    found[found] &= key_N[position[found]] == key_N[found] + shift
    return np.flatnonzero(found), position[found]


def _swapped(parts: Parts, pairs: EncodedPairs, found: Similarities) -> Finding | None:
    """Compare images with the same ones with red and blue exchanged."""
    rows = np.flatnonzero(pairs.swapped_N)
    if len(rows) < MIN_PAIRS:
        return None
    gain_N = (pairs.exchanged_NE[rows] * pairs.text_NE[rows]).sum(axis=1) - found.true_N[rows]
    exchanged = _compare(pairs.exchanged_NE[rows], pairs.text_NE[rows], pairs.caption_N[rows])
    stored = _compare(pairs.image_NE[rows], pairs.text_NE[rows], pairs.caption_N[rows])
    share, deviations = float((gain_N > 0).mean()), float(gain_N.mean() / (gain_N.std() / len(rows) ** 0.5 + 1e-9))
    if share < SWAPPED_SHARE or deviations < SWAPPED_DEVIATIONS or exchanged.auc < max(SWAPPED_AUC, stored.auc):
        return None
    message = f"red and blue are exchanged: {share:.0%} of {len(rows):,} images agree better with their captions when they are "
    message += f"exchanged again (AUC {exchanged.auc:.2f}, as stored {stored.auc:.2f})"
    remedy = "Write the images as RGB: OpenCV has BGR, so convert with cv2.cvtColor before another library saves them."
    total, best = len(found.true_N), rows[np.argsort(-gain_N, kind="stable")[:MAX_EXAMPLES]].tolist()
    examples = _examples(parts, pairs, best, found)
    return make_finding("swapped_channels", "error", round(share * total), total, message, remedy, examples, estimated=True)


def _low(parts: Parts, pairs: EncodedPairs, report: AgreementReport, found: Similarities) -> Finding:
    severity: Severity = "error" if report.auc < LOWER else "warning"
    level = "hardly more similar to their own captions than to others" if severity == "error" else "only somewhat more similar"
    message = f"to the teacher {report.teacher}, images are {level} (AUC {report.auc:.2f}, where 0.5 is chance; mean similarity "
    message += f"{report.true_mean:.2f} and {report.shuffled_mean:.2f})"
    remedy = "Look at the examples. If their captions fit, the teacher does not suit these images: choose one that was trained "
    remedy += "on such data. If not, check source.caption_key, and how the shards were written."
    count = int((found.true_N <= np.median(found.shuffled_M)).sum()) if len(found.shuffled_M) else 0
    worst = np.argsort(found.true_N, kind="stable")[:MAX_EXAMPLES].tolist()
    return make_finding(
        "low_agreement", severity, count, report.pairs, message, remedy, _examples(parts, pairs, worst, found), estimated=True
    )  # fmt: skip


def _near_equal(parts: Parts, pairs: EncodedPairs) -> Finding | None:
    """Count images whose embedding is almost that of an earlier one."""
    total, nearest_N = len(pairs.image_NE), np.zeros((len(pairs.image_NE), 2))
    for start in range(0, total, ROWS_AT_ONCE):
        similar = pairs.image_NE[start : start + ROWS_AT_ONCE] @ pairs.image_NE.T
        similar[np.arange(total)[None] >= np.arange(start, start + len(similar))[:, None]] = -1
        nearest_N[start : start + len(similar)] = np.stack([similar.max(axis=1), similar.argmax(axis=1)], axis=1)
    rows = np.flatnonzero(nearest_N[:, 0] >= NEAR_EQUAL)
    if len(rows) < NEAR_SHARE * total:
        return None
    message = f"{part_of(len(rows), total)} images that the teacher encoded have almost the embedding of another one of these "
    message += f"(similarity of at least {NEAR_EQUAL})"
    remedy = "Look at the examples: if they show the same, remove repeated images; if not, the teacher does not distinguish them."
    examples = []
    for row in rows[np.argsort(-nearest_N[rows, 0], kind="stable")[:MAX_EXAMPLES]]:
        other, _ = _place(parts, pairs, int(nearest_N[row, 1]))
        examples.append(example(*_place(parts, pairs, row), f"like {other}, similarity {nearest_N[row, 0]:.3f}"))
    return make_finding("near_equal_embeddings", "info", len(rows), total, message, remedy, examples, estimated=True)


def _examples(parts: Parts, pairs: EncodedPairs, rows: Sequence[int], found: Similarities) -> list[JSON]:
    return [example(*_place(parts, pairs, row), f"similarity to its caption {found.true_N[row]:.2f}") for row in rows]


def _place(parts: Parts, pairs: EncodedPairs, row: int) -> tuple[str, str]:
    return sample_place(parts, int(pairs.shard_N[row]), int(pairs.row_N[row]))
