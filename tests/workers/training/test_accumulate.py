"""Micro-batches with cached features against the whole batch at once, in one process and in two."""

import pytest
import torch
from tinyclip_workers.model.masked import MaskedTowers
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.training.gradient_cache import backward_in_parts
from tinyclip_workers.training.losses import Embeddings, affinity_loss, contrastive_loss
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.workers.layouts import Config, layout_of
from tests.workers.processes import on_workers

CONFIG: Config = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2},
}
ROWS = 12


def student() -> MaskedTowers:
    torch.manual_seed(0)
    clip = Clip(layout_of(CONFIG))
    for parameter in clip.parameters():
        nn.init.normal_(parameter, std=0.2)
    nn.init.constant_(clip.logit_scale, 3.0)
    return MaskedTowers(clip, layout_of(CONFIG), ("image", "text"), Constraint(0.0, 0.5, 0)).double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 38, (ROWS, 8), generator=generator)
    tokens[:, 5] = 39
    return torch.randn(ROWS, 3, 16, 16, generator=generator, dtype=torch.float64), tokens


def teacher_embeddings(rows: slice) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    both = nn.functional.normalize(torch.randn(2, ROWS, 6, generator=generator), dim=-1)
    return both[0][rows], both[1][rows]


def loss_and_gradients(rank: int, workers: int, part: int) -> dict[str, Tensor]:
    towers = student()
    noise = {
        tower: {group: u.double() for group, u in draws.items()}
        for tower, draws in towers.noise(torch.Generator().manual_seed(3)).items()
    }
    share = ROWS // workers
    rows = slice(rank * share, (rank + 1) * share)
    images, tokens = (whole[rows] for whole in batch())
    parts = [(*rows_of_part, noise) for rows_of_part in zip(images.split(part), tokens.split(part), strict=True)]

    def loss_of(own: Embeddings) -> Tensor:
        i2t, t2i = affinity_loss(own.image_BD, own.text_BD, own.scale, *teacher_embeddings(rows), 20.0)
        return i2t + t2i + contrastive_loss(own.image_BD, own.text_BD, own.scale)

    wrapped = DistributedDataParallel(towers) if workers > 1 else towers
    loss = backward_in_parts(wrapped, parts, loss_of, besides=lambda: towers.pull(0).loss)
    return {"loss": loss} | {name: p.grad for name, p in towers.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def whole() -> dict[str, Tensor]:
    """A plain forward and backward."""
    found = loss_and_gradients(0, 1, ROWS)
    assert {"clip.logit_scale", "clip.visual.proj", "masks.text.hidden", "masks.image.lambda_1"} <= found.keys()
    return found


@pytest.mark.parametrize("part", [6, 5, 1])
def test_one_process_in_parts_gives_the_gradient_of_the_whole_batch(whole: dict[str, Tensor], part: int) -> None:
    found = loss_and_gradients(0, 1, part)

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed = nn.functional.normalize(self.norm(x), dim=-1)
        return normed, normed.flip(1), torch.tensor(5.0)


def test_running_statistics_count_every_row_once() -> None:
    rows, plain, in_parts = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), WithBatchNorm(), WithBatchNorm()
    for part in rows.chunk(2):
        plain(part)

    backward_in_parts(
        in_parts, [(part,) for part in rows.chunk(2)], lambda own: contrastive_loss(own.image_BD, own.text_BD, own.scale)
    )

    for name, tensor in plain.state_dict().items():
        assert torch.equal(in_parts.state_dict()[name], tensor), name
    assert in_parts.norm.track_running_stats
