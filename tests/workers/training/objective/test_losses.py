"""Losses and their gradients against the reference, in one process and in several."""

import pytest
import torch
from tinyclip_workers.training.objective import losses as module
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings, affinity_loss, contrastive_loss
from tinyclip_workers.training.objective.terms import EmbeddedBatch, objective_terms, weighted_sum
from torch import Tensor

from tests.workers.parity import Arrays, Near, assert_near
from tests.workers.processes import on_workers

TOLERANCE = 1e-5
AFFINITY, CONTRASTIVE, COMBINED = (
    {f"{name}{of}" for of in ("", "_dimg", "_dtxt", "_dscale")} for name in ("soft", "hard", "combo")
)
WORLDS = sorted({int(name[1:].split("/")[0]) for name in Arrays("loss.npz").names() if name.startswith("W")})


def embeddings(arrays: Arrays, rows: slice) -> tuple[StudentEmbeddings, TeacherEmbeddings]:
    student = StudentEmbeddings(
        arrays["student_img"][rows].requires_grad_(),
        arrays["student_txt"][rows].requires_grad_(),
        Arrays("loss.npz")["student_scale"].requires_grad_(),
    )
    teacher = TeacherEmbeddings(arrays["teacher_img"][rows], arrays["teacher_txt"][rows], Arrays("loss.npz")["teacher_scale"])
    return student, teacher


def losses(student: StudentEmbeddings, teacher: TeacherEmbeddings) -> dict[str, Tensor]:
    """Compute all losses, by their names in the fixtures."""
    i2t, t2i = affinity_loss(student, [teacher])
    alpha, weight = (Arrays("loss.npz")[name].item() for name in ("alpha", "weight"))
    weights = {"affinity": alpha * weight, "contrastive": (1 - alpha) * weight}
    return {
        "i2t": i2t,
        "t2i": t2i,
        "soft": (i2t + t2i) / 2,
        "hard": contrastive_loss(student.image_BD, student.text_BD, student.scale),
        "combo": weighted_sum(weights, objective_terms(weights, EmbeddedBatch(student, [teacher]))),
    }


def losses_and_gradients(rank: int, world_size: int, local: bool) -> dict[str, Tensor]:
    arrays = Arrays("loss.npz", f"W{world_size}/")
    batch = len(arrays["student_img"]) // (world_size if local else 1)
    found: dict[str, Tensor] = {}
    for name in ("i2t", "t2i", "soft", "hard", "combo"):
        student, teacher = embeddings(arrays, slice(rank * batch, (rank + 1) * batch))
        loss = losses(student, teacher)[name]
        loss.backward()
        assert isinstance(student.scale, Tensor)
        found[name] = loss.detach()
        for suffix, tensor in (("dimg", student.image_BD), ("dtxt", student.text_BD), ("dscale", student.scale)):
            found[f"{name}_{suffix}"] = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    return found


def without_half_of_the_gradient(rank: int, world_size: int, local: bool) -> dict[str, Tensor]:
    """Do the same without the gradient of gathered rows, as the reference without gather_with_grad (F7)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "gather_with_gradient", module.gather)
        return losses_and_gradients(rank, world_size, local)


def assert_halves_are_the_references(found: dict[str, Tensor], arrays: Arrays, names: set[str], near: Near) -> None:
    """Compare with the reference's gradients without the gathered side: the difference is exactly that side."""
    for name in sorted(names):
        loss, _, of = name.partition("_")
        near(found[name], arrays, f"{loss}_nogradgather_{of}" if of else f"{loss}_nogradgather", TOLERANCE)


def assert_equal_to_reference(found: dict[str, Tensor], arrays: Arrays, near: Near) -> None:
    for name in AFFINITY | CONTRASTIVE | COMBINED:
        near(found[name], arrays, name, TOLERANCE)
    for name in (name for name in arrays.names() if "nogradgather" not in name):
        near(found[name], arrays, name, TOLERANCE)


@pytest.mark.parametrize("world_size", WORLDS)
def test_one_process_with_the_whole_batch_gives_the_reference_losses_and_gradients(world_size: int, near: Near) -> None:
    found = losses_and_gradients(0, world_size, False)

    reference = Arrays("loss.npz", f"W{world_size}/full/")
    assert_equal_to_reference(found, reference, near)
    # The reference's contrastive loss gathers nothing in one process: with it, all of its gradient is there.
    assert_halves_are_the_references(without_half_of_the_gradient(0, world_size, False), reference, AFFINITY, near)
    assert_halves_are_the_references(found, reference, CONTRASTIVE | {"i2t", "t2i", "combo"}, near)


def whole_and_half_gradients(rank: int, world_size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return losses_and_gradients(rank, world_size, True), without_half_of_the_gradient(rank, world_size, True)


@pytest.mark.parametrize("world_size", [world for world in WORLDS if world > 1])
def test_every_worker_gives_the_reference_losses_and_gradients_and_their_mean_is_the_full_batch(
    world_size: int, near: Near
) -> None:
    by_rank, halves = zip(*on_workers(world_size, whole_and_half_gradients, world_size), strict=True)

    for rank, (found, half) in enumerate(zip(by_rank, halves, strict=True)):
        reference = Arrays("loss.npz", f"W{world_size}/rank{rank}/")
        assert_equal_to_reference(found, reference, near)
        assert_halves_are_the_references(half, reference, AFFINITY | CONTRASTIVE | COMBINED | {"i2t", "t2i"}, near)
    full = losses_and_gradients(0, world_size, False)
    for name in ("soft", "hard", "combo", "soft_dscale", "hard_dscale"):
        assert_near(torch.stack([found[name] for found in by_rank]).mean(0), full[name], 1e-6, name)
    for name in ("soft_dimg", "soft_dtxt", "hard_dimg", "combo_dtxt"):
        assert_near(torch.cat([found[name] for found in by_rank]) / world_size, full[name], 1e-6, name)


def test_similarities_stay_fp32_under_autocast() -> None:
    student, teacher = embeddings(Arrays("loss.npz", f"W{WORLDS[0]}/"), slice(None))
    plain = losses(student, teacher)

    with torch.autocast("cpu", torch.bfloat16):
        autocast = losses(student, teacher)

    for name, loss in plain.items():
        assert autocast[name].dtype == torch.float32
        assert torch.equal(autocast[name], loss), name


def test_affinity_without_a_teacher_is_an_error() -> None:
    student, _ = embeddings(Arrays("loss.npz", f"W{WORLDS[0]}/"), slice(None))

    with pytest.raises(ValueError, match=r"objective\.affinity"):
        objective_terms({"affinity": 1.0}, EmbeddedBatch(student))
