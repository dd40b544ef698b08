"""Evaluation numbers against small cases counted by hand, and the solver against its own optimality condition."""

import pytest
import torch
import torch.nn.functional as F
from tinyclip_workers import metrics


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


def test_the_probe_learns_what_is_there_and_little_of_what_is_not() -> None:
    generator = torch.Generator().manual_seed(1)
    centers = torch.randn(3, 5, generator=generator) * 2
    labels_N = torch.arange(90) % 3
    train_NE = centers[labels_N] + torch.randn(90, 5, generator=generator)

    scores = metrics.linear_probe(train_NE, labels_N, train_NE, labels_N)
    shuffled = metrics.linear_probe(train_NE, labels_N[torch.randperm(90, generator=generator)], train_NE, labels_N)

    assert scores["top1"] > 0.9
    assert shuffled["top1"] < 0.6


def test_the_probe_does_not_care_about_the_scale_of_the_embeddings() -> None:
    generator = torch.Generator().manual_seed(2)
    labels_N = torch.arange(60) % 4
    train_NE = torch.randn(4, 6, generator=generator)[labels_N] + torch.randn(60, 6, generator=generator)

    assert metrics.linear_probe(train_NE, labels_N, train_NE, labels_N) == metrics.linear_probe(
        train_NE * 100 + 7, labels_N, train_NE * 100 + 7, labels_N
    )


def test_a_class_embedding_is_the_direction_of_the_mean_prompt() -> None:
    text_TCE = torch.tensor([[[10.0, 0.0]], [[0.0, 0.1]]])

    torch.testing.assert_close(metrics.class_embeddings(text_TCE), torch.tensor([[0.5**0.5, 0.5**0.5]]))
