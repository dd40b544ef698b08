"""The sigmoid losses are open_clip's, on whole batches and on several workers, and a student keeps its bias."""

import pytest
import torch
from open_clip.loss import SigLipLoss
from tinyclip.schemas import JobSpec, Layout
from tinyclip_workers.model.architecture import build_clip, layout_from_config, open_clip_config, with_logit_bias
from tinyclip_workers.model.summary import state_shapes
from tinyclip_workers.training.objective.losses import SigmoidScale, StudentEmbeddings, TeacherEmbeddings
from tinyclip_workers.training.objective.sigmoid import sigmoid_affinity_loss, sigmoid_contrastive_loss
from tinyclip_workers.training.stage import Parent, build_student, resolve_stage

from tests.workers.models import tiny_layout, tiny_model
from tests.workers.processes import on_workers

N, D, E, SCALE, BIAS = 8, 6, 5, 12.0, -4.0


def unit(seed: int, size: int) -> torch.Tensor:
    x_ND = torch.randn(N, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x_ND, dim=1)


def student(rows: slice = slice(None)) -> StudentEmbeddings:
    image, text = unit(1, D)[rows].requires_grad_(), unit(2, D)[rows].requires_grad_()
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (SCALE, BIAS))
    return StudentEmbeddings(image, text, scale, bias)


def teacher(seed: int, weight: float = 1.0, rows: slice = slice(None), *, sigmoid: bool = True) -> TeacherEmbeddings:
    scale = SigmoidScale(30.0, -9.0) if sigmoid else None
    return TeacherEmbeddings(unit(seed, E)[rows], unit(seed + 1, E)[rows], 50.0, weight, scale)


def test_contrastive_is_the_loss_of_open_clip() -> None:
    own = student()

    expected = SigLipLoss()(own.image_BD, own.text_BD, own.scale, own.bias)

    torch.testing.assert_close(sigmoid_contrastive_loss(own), expected)


def test_affinity_is_the_cross_entropy_of_the_mean_probabilities() -> None:
    own, teachers = student(), [teacher(3, 0.75), teacher(5, 0.25)]

    loss = sigmoid_affinity_loss(own, teachers)

    wanted = sum(each.weight * torch.sigmoid(30 * each.image_BE @ each.text_BE.T - 9) for each in teachers)
    found = torch.sigmoid(SCALE * own.image_BD @ own.text_BD.T + BIAS)
    expected = -(wanted * found.log() + (1 - wanted) * (1 - found).log()).sum() / N
    torch.testing.assert_close(loss, expected)


def test_affinity_is_least_for_the_teacher_itself() -> None:
    theirs = teacher(3)
    perfect = StudentEmbeddings(theirs.image_BE, theirs.text_BE, 30.0, -9.0)
    target = torch.sigmoid(30 * theirs.image_BE @ theirs.text_BE.T - 9)
    entropy = torch.distributions.Bernoulli(probs=target).entropy().sum() / N

    assert sigmoid_affinity_loss(perfect, [theirs]).item() == pytest.approx(entropy.item())


def test_a_softmax_teacher_takes_no_part_and_alone_is_an_error() -> None:
    own = student()

    mixed = sigmoid_affinity_loss(own, [teacher(3, 0.5), teacher(5, 0.5, sigmoid=False)])

    torch.testing.assert_close(mixed, sigmoid_affinity_loss(own, [teacher(3)]))
    with pytest.raises(ValueError, match="needs a teacher with a logit bias"):
        sigmoid_affinity_loss(own, [teacher(5, sigmoid=False)])


def gradients_of_rows(rank: int, workers: int) -> list[torch.Tensor]:
    share = N // workers
    rows = slice(rank * share, (rank + 1) * share)
    own = student(rows)
    (sigmoid_contrastive_loss(own) + sigmoid_affinity_loss(own, [teacher(3, rows=rows)])).backward()
    return [x.grad for x in (own.image_BD, own.text_BD, own.scale, own.bias)]  # type: ignore[union-attr]


def test_the_mean_gradient_of_two_workers_is_that_of_one() -> None:
    [whole] = on_workers(1, gradients_of_rows, 1)
    parts = on_workers(2, gradients_of_rows, 2)

    for index in (0, 1):  # rows: each worker's share of the mean
        torch.testing.assert_close(torch.cat([part[index] for part in parts]) / 2, whole[index])
    for index in (2, 3):
        torch.testing.assert_close((parts[0][index] + parts[1][index]) / 2, whole[index])


def test_a_student_of_a_sigmoid_objective_has_a_bias_and_opens_in_open_clip() -> None:
    spec = JobSpec.model_validate(
        {
            "name": "sigmoid", "teacher": {"model": "local-dir:x"}, "data": {"train": {"shards": "x"}},
            "objective": {"sigmoid_contrastive": 1},
            "stages": [{"name": "one", "inherit": "manual", "select": "leading", "student": {"text": {"layers": 1}},
                        "train": {"steps": 1}}],
        }
    )  # fmt: skip
    stage = resolve_stage(spec, 0, tiny_layout(), None, 10)

    built = build_student(stage, 0, Parent(tiny_model().state_dict(), tiny_layout()))

    assert isinstance(stage.layout, Layout)
    assert built.logit_bias.item() == -10
    assert layout_from_config(open_clip_config(stage.layout)) == stage.layout
    assert state_shapes(stage.layout).keys() == built.state_dict().keys()


def test_an_architecture_gets_a_bias_too() -> None:
    layout = tiny_layout()
    assert build_clip(layout).logit_bias is None
    assert build_clip(with_logit_bias(layout)).logit_bias.item() == -10
