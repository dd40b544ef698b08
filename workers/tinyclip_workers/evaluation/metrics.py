"""Metrics of an evaluation, from embeddings alone. All are shares between 0 and 1.

Shapes: N images, M texts, C classes, E embedding size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PROBE_DECADES = (-4.0, -2.0, 0.0, 2.0, 4.0)
"""log10 of C, the inverse strength of the linear probe's L2 penalty: the first values of the search for C."""
PROBE_REFINEMENTS = 2
"""The search is repeated around the best C this many times, each time with half the step."""
PROBE_HELD_OUT = 5
"""Every n-th training sample of each class is held out to choose C."""

_CHUNK_ROWS = 1024
"""Similarities are computed for this many rows at a time: N x M of a large set does not fit in memory."""


def classification(scores_NC: Tensor, labels_N: Tensor) -> dict[str, Any]:
    """Return top1, top5, mean_per_class (over the classes that occur) and per_class: top1 of each class, None without samples.

    A sample of no class (label -1) counts as wrong.
    """
    classes = scores_NC.shape[1]
    ranked_NK = scores_NC.topk(min(5, classes), dim=1).indices
    right_NK = ranked_NK == labels_N[:, None]
    known = labels_N >= 0
    total_C = torch.bincount(labels_N[known], minlength=classes)
    right_C = torch.bincount(labels_N[right_NK[:, 0]], minlength=classes)
    occurs = total_C > 0
    per_class = [round(r / t, 4) if t else None for r, t in zip(right_C.tolist(), total_C.tolist(), strict=True)]
    return {
        "top1": _share_true(right_NK[:, 0]),
        "top5": _share_true(right_NK.any(dim=1)),
        "mean_per_class": float((right_C[occurs] / total_C[occurs]).mean()) if occurs.any() else 0.0,
        "per_class": per_class,
    }


def retrieval(image_NE: Tensor, text_ME: Tensor, texts_of_image: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return R@1, R@5 and R@10 in both directions; texts are distinct, `texts_of_image[n]` are the rows of image n's captions.

    image_to_text: share of images with one of their captions among the first k. text_to_image: share of texts with one of
    their images among the first k. A caption of several images is one text, and any of these images is correct.
    """
    relevant = torch.zeros(len(image_NE), len(text_ME), dtype=torch.bool)
    for image, texts in enumerate(texts_of_image):
        relevant[image, list(texts)] = True
    scores: dict[str, float] = {}
    for direction, queries, items, correct in (
        ("image_to_text", image_NE, text_ME, relevant),
        ("text_to_image", text_ME, image_NE, relevant.T),
    ):
        ranked = torch.cat([(rows @ items.T).topk(min(10, len(items)), dim=1).indices.cpu() for rows in row_chunks(queries)])
        found = correct.gather(1, ranked)
        scores |= {f"{direction}_r{k}": _share_true(found[:, :k].any(dim=1)) for k in (1, 5, 10)}
    return scores


def worst_classes(scores_NC: Tensor, labels_N: Tensor, names: Sequence[str], count: int = 10) -> list[dict[str, Any]]:
    """Return the classes with the lowest top1, the lowest first, each with the three that it is most often mistaken for.

    Each is {class, row, samples, top1, mistaken_for: [{class, row, share}]}; shares are of the class's samples. Classes that
    do not occur or have no errors are left out.
    """
    known = labels_N >= 0
    labels_N, found_N = labels_N[known], scores_NC[known].argmax(dim=1)
    classes = scores_NC.shape[1]
    total_C = torch.bincount(labels_N, minlength=classes)
    right_C = torch.bincount(labels_N[found_N == labels_N], minlength=classes)
    wrong = [row for row in range(classes) if right_C[row] < total_C[row]]
    worst: list[dict[str, Any]] = []
    for row in sorted(wrong, key=lambda row: float(right_C[row] / total_C[row]))[:count]:
        found_C = torch.bincount(found_N[labels_N == row], minlength=classes)
        found_C[row] = 0
        total = int(total_C[row])
        others = found_C.argsort(descending=True, stable=True)[:3].tolist()
        mistaken = [{"class": names[i], "row": i, "share": round(int(found_C[i]) / total, 4)} for i in others if found_C[i]]
        top1 = round(int(right_C[row]) / total, 4)
        worst.append({"class": names[row], "row": row, "samples": total, "top1": top1, "mistaken_for": mistaken})
    return worst


def linear_probe(train_NE: Tensor, train_labels_N: Tensor, test_NE: Tensor) -> tuple[Tensor, float]:
    """Fit a logistic regression on frozen embeddings. Return its scores of the test embeddings (M, C), and the chosen C.

    Embeddings are standardised with the training set's mean and deviation; the penalty is |W|^2 / (2 C n). The chosen C is the
    one whose probe, fitted to four fifths of each class, is right most often on the last fifth (ties: the nearest to 1); then
    the probe is fitted to all. The search is that of CLIP (arXiv 2103.00020, appendix A.3), but coarser. It is deterministic.
    """
    mean_E, std_E = train_NE.double().mean(dim=0), train_NE.double().std(dim=0).clamp_min(1e-6)
    x_NE, test_ME = ((rows.double() - mean_E) / std_E for rows in (train_NE, test_NE))
    classes = int(train_labels_N.max()) + 1
    held_out_N = _every_nth_of_class(train_labels_N, PROBE_HELD_OUT)
    c = _best_c(x_NE, train_labels_N, held_out_N, classes) if held_out_N.any() else 1.0
    return _fit_probe(x_NE, train_labels_N, classes, c)(test_ME), c


def _best_c(x_NE: Tensor, labels_N: Tensor, held_out_N: Tensor, classes: int) -> float:
    right: dict[float, int] = {}

    def best(decades: Sequence[float]) -> float:
        for decade in decades:
            if decade not in right:
                probe = _fit_probe(x_NE[~held_out_N], labels_N[~held_out_N], classes, 10**decade)
                right[decade] = int((probe(x_NE[held_out_N]).argmax(dim=1) == labels_N[held_out_N]).sum())
        return max(sorted(right), key=lambda decade: (right[decade], -abs(decade)))

    decade, step = best(PROBE_DECADES), PROBE_DECADES[1] - PROBE_DECADES[0]
    for _ in range(PROBE_REFINEMENTS):
        step /= 2
        around = (decade - step, decade + step)
        decade = best([near for near in around if PROBE_DECADES[0] <= near <= PROBE_DECADES[-1]])
    return float(10**decade)


def _fit_probe(x_NE: Tensor, labels_N: Tensor, classes: int, c: float) -> Callable[[Tensor], Tensor]:
    """Return the penalised optimum as a function, found by L-BFGS in fp64, so that it does not depend on a learning rate."""
    weight_CE = torch.zeros(classes, x_NE.shape[1], dtype=torch.float64, device=x_NE.device, requires_grad=True)
    bias_C = torch.zeros(classes, dtype=torch.float64, device=x_NE.device, requires_grad=True)
    solver = torch.optim.LBFGS([weight_CE, bias_C], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def penalised_loss() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x_NE @ weight_CE.T + bias_C, labels_N)
        loss = loss + weight_CE.square().sum() / (2 * c * len(x_NE))
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(penalised_loss)
    weight_CE, bias_C = weight_CE.detach(), bias_C.detach()
    return lambda rows_ME: rows_ME @ weight_CE.T + bias_C


def _every_nth_of_class(labels_N: Tensor, n: int) -> Tensor:
    """Return a mask of the n-th, 2n-th, … sample of each class."""
    counts: dict[int, int] = {}
    chosen = []
    for label in labels_N.tolist():
        counts[label] = counts.get(label, 0) + 1
        chosen.append(counts[label] % n == 0)
    return torch.tensor(chosen, device=labels_N.device)


def class_embeddings(text_TCE: Tensor) -> Tensor:
    """Return one embedding for each class (C, E), the normalised mean over templates of its prompts' normalised embeddings."""
    return F.normalize(F.normalize(text_TCE, dim=-1).mean(dim=0), dim=-1)


def _share_true(right: Tensor) -> float:
    return float(right.float().mean())


def row_chunks(rows_NE: Tensor) -> list[Tensor]:
    """Divide a matrix into parts of so many rows that products of them fit in memory."""
    return [rows_NE[start : start + _CHUNK_ROWS] for start in range(0, len(rows_NE), _CHUNK_ROWS)]
