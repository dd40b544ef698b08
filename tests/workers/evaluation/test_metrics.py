"""Metrics against small cases counted by hand, and the probe against a plain implementation."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from tinyclip_workers.evaluation import metrics

Matrix = npt.NDArray[Any]


def test_classification_counts_ranks_and_classes() -> None:
    scores_NC = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3], [9, 8, 7, 6, 5, 4, 3], [0, 1, 2, 3, 4, 5, 9]])
    labels_N = torch.tensor([0, 4, 5, 6])

    scores = metrics.classification(scores_NC, labels_N)

    assert scores == {
        "top1": 0.5, "top5": 0.75, "mean_per_class": 0.5, "per_class": [1.0, None, None, None, 0.0, 0.0, 1.0],
    }


def test_an_unknown_label_is_wrong_and_of_no_class() -> None:
    scores = metrics.classification(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, -1]))

    assert scores["top1"] == 0.5
    assert scores["per_class"] == [1.0, None]


def test_retrieval_counts_any_image_of_a_shared_caption_as_right() -> None:
    """Images 0 and 1 have the caption 0; image 2 looks like caption 0 but has caption 1."""
    image_NE = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.4], [1.0, 0.0]]), dim=-1)
    text_ME = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=-1)

    scores = metrics.retrieval(image_NE, text_ME, [[0], [0], [1]])

    assert scores["image_to_text_r1"] == pytest.approx(2 / 3)
    assert scores["text_to_image_r1"] == 0.0  # text 0 finds image 2 first, text 1 finds image 1
    assert scores["text_to_image_r5"] == scores["image_to_text_r5"] == 1.0


def test_retrieval_ranks_of_many_rows_equal_a_plain_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    image_NE = F.normalize(torch.randn(1500, 8, generator=generator), dim=-1)
    text_ME = F.normalize(image_NE + 0.5 * torch.randn(1500, 8, generator=generator), dim=-1)

    scores = metrics.retrieval(image_NE, text_ME, [[i] for i in range(1500)])

    rank_M = ((text_ME @ image_NE.T) > (text_ME * image_NE).sum(-1, keepdim=True) + 1e-6).sum(dim=1)
    assert scores["text_to_image_r5"] == pytest.approx(float((rank_M < 5).float().mean()), abs=2e-3)


def blobs(seed: int, count: int, classes: int, width: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=generator) * 2
    labels_N = torch.arange(count) % classes
    return centers[labels_N] + spread * torch.randn(count, width, generator=generator), labels_N


def accuracy(train_NE: torch.Tensor, train_N: torch.Tensor, test_NE: torch.Tensor, test_N: torch.Tensor) -> float:
    scores_MC, _ = metrics.linear_probe(train_NE, train_N, test_NE)
    return float((scores_MC.argmax(dim=1) == test_N).float().mean())


def test_the_probe_learns_real_labels_but_not_shuffled_ones() -> None:
    train_NE, labels_N = blobs(1, 90, 3, 5)
    shuffled_N = labels_N[torch.randperm(90, generator=torch.Generator().manual_seed(1))]

    assert accuracy(train_NE, labels_N, train_NE, labels_N) > 0.9
    assert accuracy(train_NE, shuffled_N, train_NE, shuffled_N) < 0.6


def test_the_probe_is_deterministic() -> None:
    train_NE, labels_N = blobs(2, 30, 3, 4)

    (first_MC, first_c), (second_MC, second_c) = (metrics.linear_probe(train_NE, labels_N, train_NE) for _ in range(2))

    assert first_c == second_c
    assert torch.equal(first_MC, second_MC)


def test_the_probe_is_independent_of_the_scale_of_the_embeddings() -> None:
    train_NE, labels_N = blobs(2, 60, 4, 6)

    (plain_MC, c), (scaled_MC, scaled_c) = (metrics.linear_probe(x, labels_N, x) for x in (train_NE, train_NE * 100 + 7))

    assert c == scaled_c
    torch.testing.assert_close(plain_MC, scaled_MC, atol=1e-3, rtol=1e-3)


def test_the_probe_is_the_penalised_optimum_of_the_c_with_most_correct_held_out_samples() -> None:
    train_NE, labels_N = blobs(3, 60, 3, 4, spread=3.0)
    test_NE, _ = blobs(4, 12, 3, 4)

    scores_MC, c = metrics.linear_probe(train_NE, labels_N, test_NE)

    x, t, y = train_NE.double().numpy(), test_NE.double().numpy(), labels_N.numpy()
    mean, std = x.mean(0), x.std(0, ddof=1)
    x, t = (x - mean) / std, (t - mean) / std
    held_out = np.array([np.sum(y[: i + 1] == y[i]) % 5 == 0 for i in range(60)])
    tried = [10.0**d for d in np.arange(-4, 4.5, 0.5)]
    right = {tried_c: held_out_right(x, y, held_out, tried_c) for tried_c in (0.01, 1.0, 100.0, c)}
    assert right[c] == max(right.values())
    assert min(abs(np.log10(tried_c) - np.log10(c)) for tried_c in tried) < 1e-9
    weight, bias = plain_probe(x, y, 3, c)
    np.testing.assert_allclose(scores_MC.numpy(), t @ weight.T + bias, atol=2e-4)


def held_out_right(x: Matrix, y: Matrix, held_out: Matrix, c: float) -> int:
    weight, bias = plain_probe(x[~held_out], y[~held_out], 3, c)
    return int(np.sum((x[held_out] @ weight.T + bias).argmax(1) == y[held_out]))


def plain_probe(x: Matrix, y: Matrix, classes: int, c: float) -> tuple[Matrix, Matrix]:
    """Gradient descent on mean cross-entropy + |W|^2 / (2 C n), without a solver."""
    weight, bias, target = np.zeros((classes, x.shape[1])), np.zeros(classes), np.eye(classes)[y]
    rate = 1.0 / (x.shape[1] + 1 / (c * len(x)))
    for _ in range(4_000):
        logits = x @ weight.T + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - target) / len(x)
        weight, bias = weight - rate * (error.T @ x + weight / (c * len(x))), bias - rate * error.sum(0)
    return weight, bias


def test_worst_classes_are_reported_with_the_classes_that_they_are_mistaken_for() -> None:
    """Class 0: 1 of 2 right; class 1: 0 of 3, twice 2 and once 0; class 2: right; class 3 does not occur."""
    found = [0, 2, 2, 2, 0, 2]
    scores_NC = F.one_hot(torch.tensor(found), 4).float()

    worst = metrics.worst_classes(scores_NC, torch.tensor([0, 0, 1, 1, 1, 2]), ["a", "b", "c", "d"])

    assert worst == [
        {
            "class": "b", "row": 1, "samples": 3, "top1": 0.0,
            "mistaken_for": [{"class": "c", "row": 2, "share": 0.6667}, {"class": "a", "row": 0, "share": 0.3333}],
        },
        {"class": "a", "row": 0, "samples": 2, "top1": 0.5, "mistaken_for": [{"class": "c", "row": 2, "share": 0.5}]},
    ]
    assert metrics.worst_classes(scores_NC, torch.tensor([0, 0, 1, 1, 1, 2]), ["a", "b", "c", "d"], count=1) == worst[:1]


def test_a_class_embedding_is_the_direction_of_the_mean_prompt() -> None:
    text_TCE = torch.tensor([[[10.0, 0.0]], [[0.0, 0.1]]])

    torch.testing.assert_close(metrics.class_embeddings(text_TCE), torch.tensor([[0.5**0.5, 0.5**0.5]]))
