"""The numbers of an evaluation, from embeddings alone. All are shares between 0 and 1.

Shapes: N images, M texts, C classes, E embedding size.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PROBE_C = 0.316
"""Inverse strength of the linear probe's L2 penalty: what CLIP's authors use where they do not sweep it."""

_ROWS = 1024
"""Similarities are computed for so many rows at a time: N x M of a large set does not fit in memory."""


def classification(scores_NC: Tensor, labels_N: Tensor) -> dict[str, Any]:
    """top1, top5, mean_per_class (over the classes that occur) and per_class: top1 in class order, null where none occurs.

    A label beyond the classes (-1) is wrong whatever the scores say.
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
        "top1": _share(right_NK[:, 0]),
        "top5": _share(right_NK.any(dim=1)),
        "mean_per_class": float((right_C[occurs] / total_C[occurs]).mean()) if occurs.any() else 0.0,
        "per_class": per_class,
    }


def retrieval(image_NE: Tensor, text_ME: Tensor, texts_of_image: Sequence[Sequence[int]]) -> dict[str, float]:
    """R@1, R@5 and R@10 both ways; the texts are distinct, `texts_of_image[n]` are the rows of image n's captions.

    image_to_text: share of images with one of their captions among the first k. text_to_image: share of texts with one of
    their images among the first k. A caption that several images have is one text, and any of those images is right.
    """
    relevant = torch.zeros(len(image_NE), len(text_ME), dtype=torch.bool)
    for image, texts in enumerate(texts_of_image):
        relevant[image, list(texts)] = True
    scores: dict[str, float] = {}
    for way, queries, items, right in (
        ("image_to_text", image_NE, text_ME, relevant),
        ("text_to_image", text_ME, image_NE, relevant.T),
    ):
        ranked = torch.cat([(rows @ items.T).topk(min(10, len(items)), dim=1).indices.cpu() for rows in _parts(queries)])
        found = right.gather(1, ranked)
        scores |= {f"{way}_r{k}": _share(found[:, :k].any(dim=1)) for k in (1, 5, 10)}
    return scores


def linear_probe(train_NE: Tensor, train_labels_N: Tensor, test_NE: Tensor, test_labels_N: Tensor) -> dict[str, Any]:
    """The scores of a logistic regression on frozen embeddings, as `classification`.

    Embeddings are standardised with the training set's mean and deviation; the penalty is |W|^2 / (2 C n) with C = 0.316,
    found by L-BFGS in fp64, so that the answer does not depend on a learning rate.
    """
    mean_E, std_E = train_NE.double().mean(dim=0), train_NE.double().std(dim=0).clamp_min(1e-6)
    x_NE = (train_NE.double() - mean_E) / std_E
    classes = int(train_labels_N.max()) + 1
    weight_CE = torch.zeros(classes, x_NE.shape[1], dtype=torch.float64, requires_grad=True)
    bias_C = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight_CE, bias_C], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def penalised_loss() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x_NE @ weight_CE.T + bias_C, train_labels_N)
        loss = loss + weight_CE.square().sum() / (2 * PROBE_C * len(x_NE))
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(penalised_loss)
    with torch.no_grad():
        return classification((test_NE.double() - mean_E) / std_E @ weight_CE.T + bias_C, test_labels_N)


def class_embeddings(text_TCE: Tensor) -> Tensor:
    """One embedding a class (C, E) from those of its prompts by template: the mean of unit vectors, of unit length again."""
    return F.normalize(F.normalize(text_TCE, dim=-1).mean(dim=0), dim=-1)


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _parts(rows_NE: Tensor) -> list[Tensor]:
    return [rows_NE[start : start + _ROWS] for start in range(0, len(rows_NE), _ROWS)]
