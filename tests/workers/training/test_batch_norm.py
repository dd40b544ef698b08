"""Batch normalisation of two workers against one process with the whole batch."""

import copy

import pytest
import torch
import torch.distributed as dist
from tinyclip_workers.training.batch_norm import SynchronizedBatchNorm2d, synchronize_batch_norm
from torch import Tensor, nn

from tests.workers.processes import on_workers

IMAGES, TARGETS = 7, 5


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Sequential(nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm2d(4)),
        nn.Flatten(), nn.Linear(4 * 3 * 3, TARGETS),
    ).double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(IMAGES, 3, 9, 9, generator=generator, dtype=torch.float64) * 3 + 5
    return images, torch.randn(IMAGES, TARGETS, generator=generator, dtype=torch.float64)


def two_steps(model: nn.Sequential, images: Tensor, targets: Tensor, share: float) -> dict[str, Tensor]:
    """Return losses (this worker's part of the mean), gradients summed over workers, and the state after two steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found: dict[str, Tensor] = {}
    for step in range(2):
        optimizer.zero_grad()
        loss = (model(images) - targets).square().mean() * share
        loss.backward()
        for parameter in model.parameters():
            if dist.is_initialized():
                dist.all_reduce(parameter.grad)
        optimizer.step()
        found[f"loss {step}"] = loss.detach()
        found |= {f"gradient {step} {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {f"state {name}": tensor.clone() for name, tensor in model.state_dict().items()}


def on_a_part(rank: int, sizes: list[int]) -> dict[str, Tensor]:
    images, targets = batch()
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    model = synchronize_batch_norm(network())
    assert isinstance(model[1], SynchronizedBatchNorm2d)
    return two_steps(model, images[rows], targets[rows], sizes[rank] / IMAGES)


@pytest.mark.parametrize("sizes", [[4, 3]])
def test_two_workers_give_the_loss_the_gradients_and_the_statistics_of_the_whole_batch(sizes: list[int]) -> None:
    whole = two_steps(network(), *batch(), share=1.0)

    parts = on_workers(2, on_a_part, sizes)

    for name, tensor in whole.items():
        if name.startswith("loss"):
            torch.testing.assert_close(parts[0][name] + parts[1][name], tensor, rtol=1e-9, atol=1e-9)
            continue
        for part in parts:
            torch.testing.assert_close(part[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


def half_precision_on_a_part(rank: int) -> tuple[Tensor, Tensor]:
    images, _ = batch()
    model = synchronize_batch_norm(network().float())
    x = images[rank * 3 : rank * 3 + 3].float()
    with torch.autocast("cpu", torch.bfloat16):
        y = model[1](model[0](x))
    y.float().square().sum().backward()
    assert model[0].weight.grad is not None
    return y.detach(), model.state_dict()["1.running_mean"]


def test_bf16_activations_keep_their_type_and_all_workers_the_same_statistics() -> None:
    (first, mean), (second, other_mean) = on_workers(2, half_precision_on_a_part)

    assert first.dtype == second.dtype == torch.bfloat16
    assert torch.equal(mean, other_mean)


def evaluation(rank: int) -> bool:
    model, images = network().eval(), batch()[0]
    plain = copy.deepcopy(model)(images)
    return torch.equal(synchronize_batch_norm(model)(images), plain)


def test_evaluation_uses_the_running_statistics_as_before() -> None:
    assert on_workers(2, evaluation) == [True, True]


def test_one_worker_keeps_torchs_own_batch_norm() -> None:
    model = network()

    assert synchronize_batch_norm(model) is model
    assert type(model[1]) is nn.BatchNorm2d
