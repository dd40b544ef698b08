"""The cost of a student as a sum over parts, against the functions of layouts that it is derived from."""

import random

import pytest
import torch
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import PruneTarget
from tinyclip_workers.costs.sizes import sizes_of
from tinyclip_workers.costs.student_cost import UnusableTarget, layout_cost, student_cost, target_cost
from tinyclip_workers.costs.terms import count_terms, term_names
from tinyclip_workers.inheritance.shape import masks_of_size
from tinyclip_workers.model.masked import size_of, units_of
from tinyclip_workers.model.masks import Mask, Tower
from tinyclip_workers.model.sparsity import PerChannel, TowerCost, kept_by, kept_in

from tests.workers.inheritance.towers import resnet_layout, siglip_layout, vit_layout

BOTH: list[Tower] = ["image", "text"]
COEFFICIENTS = {name: 10.0**-number for number, name in enumerate(term_names("vit"))}
LATENCY = PruneTarget(latency_ms=1, batch=2, coefficients=COEFFICIENTS)
TARGETS = [
    PruneTarget(params=1), PruneTarget(macs=1), PruneTarget(bytes=1), PruneTarget(bytes=1, weights="int8"), LATENCY,
    LATENCY.model_copy(update={"tower": "text"}),
]  # fmt: skip


def random_layout(layout: Layout, towers: list[Tower], seed: int) -> Layout:
    """Return a layout with random sizes, some of them 0."""
    draw, changed = random.Random(seed), {}
    for tower in towers:
        sizes = layout.image if tower == "image" else layout.text
        heads, mlp = ([draw.choice([0, draw.randint(1, count)]) for count in row or []] for row in (sizes.heads, sizes.mlp))
        changed[str(tower)] = sizes.model_copy(update={"width": draw.randint(1, sizes.width), "heads": heads, "mlp": mlp})
    return layout.model_copy(update=changed)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@pytest.mark.parametrize("layout", [vit_layout(), siglip_layout()], ids=["clip", "siglip"])
def test_the_parts_of_any_student_add_up_to_its_cost(target: PruneTarget, layout: Layout) -> None:
    cost = layout_cost(target)
    found = student_cost(cost, layout, BOTH)

    for seed in range(5):
        student = random_layout(layout, BOTH, seed)
        counted = found.constant + sum(found.towers[tower].cost(units_of(student, tower)) for tower in BOTH)
        assert counted == pytest.approx(cost(student), rel=1e-9)
    assert found.full == pytest.approx(cost(layout))
    assert found.least <= found.full


def test_a_resnets_text_tower_alone_has_a_cost() -> None:
    layout, cost = resnet_layout(), layout_cost(PruneTarget(params=1))

    found = student_cost(cost, layout, ["text"])

    student = random_layout(layout, ["text"], 0)
    assert found.constant + found.towers["text"].cost(units_of(student, "text")) == pytest.approx(cost(student))


def test_bytes_are_those_of_the_file_and_its_header() -> None:
    layout = vit_layout()

    for weights in ("fp32", "bf16", "int8"):
        target = PruneTarget.model_validate({"bytes": 1, "weights": weights})
        assert target_cost(target, layout, BOTH).full == pytest.approx(sizes_of(layout).bytes[weights])


def test_a_cost_that_is_no_sum_over_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="not a sum over"):
        student_cost(lambda layout: float(layout.image.width**2), vit_layout(), ["image"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (PruneTarget(latency_ms=1), "no coefficients predict this latency"),
        (PruneTarget(latency_ms=1, coefficients={"flops": 1.0}), "no terms flops; it has calls, blocks"),
    ],
)
def test_a_latency_needs_coefficients_of_terms_that_the_tower_has(target: PruneTarget, message: str) -> None:
    with pytest.raises(UnusableTarget, match=message):
        target_cost(target, vit_layout(), ["image"])


class TestExpectedCost:
    COST = TowerCost(
        width=8, heads=(2, 2), intermediate=(3, 3), head=PerChannel(0.5, 0.1), unit=PerChannel(0.2, 0.05), channel=0.3,
        attention=PerChannel(1.0, 0.2), mlp=PerChannel(2.0, 0.1), block=PerChannel(5.0, 0.0),
    )  # fmt: skip

    def test_it_is_the_mean_over_all_masks_that_the_scores_make_likely(self) -> None:
        generator = torch.Generator().manual_seed(0)
        scores = Mask(torch.rand(8, generator=generator), (torch.rand(2), torch.rand(2)), (torch.rand(3), torch.rand(3)))

        drawn = [self.COST.cost(kept_by(_drawn(scores, generator))) for _ in range(4000)]

        assert float(self.COST.expected(scores)) == pytest.approx(sum(drawn) / len(drawn), rel=0.03)

    def test_a_block_that_loses_all_its_units_costs_nothing(self) -> None:
        ones, gone = torch.ones(2), torch.zeros(2)

        shallow = Mask(torch.ones(8), (ones, gone), (torch.ones(3), torch.zeros(3)))

        assert float(self.COST.expected(shallow)) == pytest.approx(self.COST.cost(kept_in(8, [2, 0], [3, 0])))
        assert self.COST.cost(kept_in(8, [2, 0], [3, 0])) < self.COST.cost(kept_in(8, [2, 1], [3, 0])) - 6

    def test_its_gradient_reaches_every_score(self) -> None:
        leaves = [torch.full((size,), 0.5, requires_grad=True) for size in (8, 2, 2, 3, 3)]

        self.COST.expected(Mask(leaves[0], (leaves[1], leaves[2]), (leaves[3], leaves[4]))).backward()

        assert all(leaf.grad is not None and bool((leaf.grad > 0).all()) for leaf in leaves)

    def test_parameters_cost_what_the_reference_counts(self) -> None:
        layout = vit_layout()
        size = size_of(layout.text)
        assert size.cost(kept_in(10, [1, 2, 0], [5, 0, 7])) == pytest.approx(10 * 3 * 4 * 8 * 33 / 32 + 2 * 10 * 12)


class TestLatencies:
    @pytest.mark.parametrize("tower", BOTH)
    @pytest.mark.parametrize("layout", [vit_layout(width=64, mlp=96), siglip_layout(width=64, mlp=96)], ids=["vit", "siglip"])
    def test_masks_see_the_predicted_one(self, layout: Layout, tower: Tower) -> None:
        coefficients = {term: 1.0 + number for number, term in enumerate(term_names("vit"))}
        target = PruneTarget(latency_ms=1, tower=tower, batch=2, coefficients=coefficients)
        sizes = {"width": 11, "heads": [2, 1, 3], "mlp": [5, 7, 20]}
        pruned = layout.model_copy(update={tower: getattr(layout, tower).model_copy(update=sizes)})

        found = target_cost(target, layout, [tower])

        terms = count_terms(pruned, tower, 2, library=False)
        predicted = sum(coefficients[term] * value for term, value in terms.items())
        assert found.constant + found.towers[tower].cost(kept_in(11, [2, 1, 3], [5, 7, 20])) == pytest.approx(predicted)

    @pytest.mark.parametrize("name", term_names("vit"))
    def test_each_term_can_be_what_masks_are_limited_by(self, name: str) -> None:
        target = PruneTarget(latency_ms=1, coefficients={"calls": 1e-6, name: 1e-6})

        found = target_cost(target, vit_layout(width=64, heads=8, mlp=96), ["image"])

        assert found.full >= found.least > 0


class TestMasksOfACost:
    @pytest.mark.parametrize("share", [0.4, 0.7])
    @pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
    def test_the_student_has_at_most_the_target_and_hardly_less(self, target: PruneTarget, share: float) -> None:
        layout = vit_layout(width=64, heads=8, mlp=96)
        towers = BOTH if target.latency_ms is None else [target.tower]
        found = student_cost(layout_cost(target), layout, towers)
        limit = found.constant + share * (found.full - found.constant)
        generator = torch.Generator().manual_seed(1)
        scores = {tower: _drawn_scores(64, 8, 96, generator) for tower in towers}

        masks = masks_of_size(scores, found.towers, found.sparsity(limit))

        cost = found.constant + sum(found.towers[tower].cost(kept_by(mask)) for tower, mask in masks.items())
        assert 0.93 * limit < cost <= limit * (1 + 1e-9)

    @pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
    def test_the_reference_s_parameters_as_a_cost_give_the_masks_of_a_sparsity(self, sparsity: float) -> None:
        layout, generator = vit_layout(width=64, heads=8, mlp=96), torch.Generator().manual_seed(2)
        sizes: dict[Tower, TowerCost] = {"image": size_of(layout.image), "text": size_of(layout.text)}
        scores = {tower: _drawn_scores(64, 8, 96, generator) for tower in BOTH}
        allowed = (1 - sparsity) * sum(size.prunable for size in sizes.values())

        def parameters(student: Layout) -> float:
            return sum(sizes[tower].cost(units_of(student, tower)) for tower in BOTH)

        found = student_cost(parameters, layout, BOTH)
        masks = masks_of_size(scores, found.towers, found.sparsity(allowed))

        wanted = masks_of_size(scores, sizes, sparsity)
        for tower in BOTH:
            assert all(torch.equal(*rows) for rows in zip(masks[tower].leaves(), wanted[tower].leaves(), strict=True))

    def test_units_that_cost_more_are_kept_for_more_importance(self) -> None:
        """Heads cost twice as much per importance as units: fewer of them are kept."""
        cost = TowerCost(4, (8,), (8,), head=PerChannel(2.0), unit=PerChannel(1.0), channel=1e-6)
        importance = torch.arange(1.0, 9.0)
        masks = masks_of_size({"text": Mask(torch.ones(4), (importance,), (importance,))}, {"text": cost}, 0.5)

        assert masks["text"].heads[0].sum() < masks["text"].intermediate[0].sum()

    def test_units_that_cost_nothing_are_kept(self) -> None:
        cost = TowerCost(4, (8,), (8,), head=PerChannel(1.0), unit=PerChannel(), channel=1.0)
        importance = torch.arange(1.0, 9.0)
        masks = masks_of_size({"text": Mask(torch.ones(4), (importance,), (importance * 1e-6,))}, {"text": cost}, 0.5)

        assert bool(masks["text"].intermediate[0].all())


def _drawn(scores: Mask, generator: torch.Generator) -> Mask:
    drawn = [(torch.rand(len(row), generator=generator) < row).float() for row in scores.leaves()]
    return Mask(drawn[0], (drawn[1], drawn[2]), (drawn[3], drawn[4]))


def _drawn_scores(width: int, heads: int, units: int, generator: torch.Generator) -> Mask:
    rows = [tuple(torch.rand(count, generator=generator) for _ in range(3)) for count in (heads, units)]
    return Mask(torch.rand(width, generator=generator), *rows)
