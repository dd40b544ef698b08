"""Micro-batches with cached embeddings against the whole batch at once, in one process and in two."""

import pytest
import torch
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings, affinity_loss, contrastive_loss
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.workers.one_step import ROWS, global_batch, masked_student, noise_of, rows_of
from tests.workers.processes import on_workers


def teacher_embeddings(rows: slice) -> TeacherEmbeddings:
    generator = torch.Generator().manual_seed(2)
    both = nn.functional.normalize(torch.randn(2, ROWS, 6, generator=generator), dim=-1)
    return TeacherEmbeddings(both[0][rows], both[1][rows], 20.0)


def loss_and_gradients(rank: int, workers: int, micro_batch: int) -> dict[str, Tensor]:
    towers, rows = masked_student(), rows_of(rank, workers)
    images, tokens = (whole[rows] for whole in global_batch())
    cache = GradientCache(DistributedDataParallel(towers) if workers > 1 else towers, micro_batch=micro_batch)

    own = StudentEmbeddings(*cache.forward(images, tokens, noise_of(towers)))
    image_to_text, text_to_image = affinity_loss(own, [teacher_embeddings(rows)])
    contrastive = contrastive_loss(own.image_BD, own.text_BD, own.scale)
    loss = cache.backward(image_to_text + text_to_image + contrastive, towers.sparsity_penalty(0).loss)

    return {"loss": loss} | {name: p.grad for name, p in towers.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """Loss and gradients of a plain forward and backward pass."""
    found = loss_and_gradients(0, 1, ROWS)
    assert {"clip.logit_scale", "clip.visual.proj", "masks.text.hidden", "masks.image.lambda_1"} <= found.keys()
    return found


@pytest.mark.parametrize("micro_batch", [6, 5, 1])
def test_one_process_in_parts_gives_the_gradient_of_the_whole_batch(whole: dict[str, Tensor], micro_batch: int) -> None:
    found = loss_and_gradients(0, 1, micro_batch)

    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6, msg=name)


def on_one_of_two(rank: int) -> list[dict[str, Tensor]]:
    return [loss_and_gradients(rank, 2, part) for part in (6, 4)]


def test_two_workers_whole_and_in_parts_give_the_gradient_of_the_whole_batch(whole: dict[str, Tensor]) -> None:
    for first, second in zip(*on_workers(2, on_one_of_two), strict=True):
        torch.testing.assert_close((first.pop("loss") + second.pop("loss")) / 2, whole["loss"], rtol=1e-6, atol=1e-6)
        for name in whole.keys() - {"loss"}:
            torch.testing.assert_close(first[name], whole[name], rtol=1e-6, atol=1e-6, msg=name)
            assert torch.equal(first[name], second[name]), name


class WithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = nn.functional.normalize(self.norm(x), dim=-1)
        return normed, normed.flip(1), torch.tensor(5.0)


def test_running_statistics_count_every_row_once() -> None:
    rows, plain, in_parts = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), WithBatchNorm(), WithBatchNorm()
    for part in rows.chunk(2):
        plain(part, part)

    cache = GradientCache(in_parts, micro_batch=3)
    cache.backward(contrastive_loss(*cache.forward(rows, rows)))

    for name, tensor in plain.state_dict().items():
        assert torch.equal(in_parts.state_dict()[name], tensor), name
    assert in_parts.norm.track_running_stats
