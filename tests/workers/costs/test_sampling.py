"""Sampled layouts: in the family, within its sizes, different, and the same ones for any count."""

import pytest
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.costs.sampling import sample_layouts
from tinyclip_workers.model.summary import meta_model, summarize

from tests.workers.costs.families import resnet, siglip, vit

LARGEST = {
    "vit": vit(heads=[8] * 6, mlp=[256] * 6, width=64),
    "resnet": resnet([2, 3, 4, 2], 32),
    "siglip": siglip(heads=[2, 2], mlp=[64, 64]),
}


@pytest.mark.parametrize("largest", [pytest.param(layout, id=name) for name, layout in LARGEST.items()])
def test_they_can_be_built_and_are_no_larger(largest: Layout) -> None:
    layouts = sample_layouts(largest, {"image", "text"}, 16, 0)

    assert len({layout.model_dump_json() for layout in layouts}) == 16
    bound = summarize(largest)
    for layout in layouts:
        assert layout.image.kind == largest.image.kind
        assert summarize(layout).image_params <= bound.image_params
        assert summarize(layout).text_params <= bound.text_params
        meta_model(layout)


def test_they_are_uniform_and_pruned() -> None:
    uniform = [layout.has_equal_blocks for layout in sample_layouts(LARGEST["vit"], {"image", "text"}, 16, 0)]

    assert 6 <= sum(uniform) <= 12


def test_depths_and_widths_are_spread() -> None:
    layouts = sample_layouts(LARGEST["vit"], {"image"}, 24, 0)

    assert {layout.image.layers[0] for layout in layouts} == {1, 2, 3, 4, 5, 6}
    widths = sorted(layout.image.width for layout in layouts)
    assert widths[0] <= 20
    assert widths[-1] >= 52


def test_fewer_are_the_first_of_more_and_the_seed_matters() -> None:
    assert sample_layouts(LARGEST["vit"], {"image"}, 5, 3) == sample_layouts(LARGEST["vit"], {"image"}, 9, 3)[:5]
    assert sample_layouts(LARGEST["vit"], {"image"}, 5, 3) != sample_layouts(LARGEST["vit"], {"image"}, 5, 4)


def test_a_tower_that_is_not_measured_is_minimal() -> None:
    for layout in sample_layouts(LARGEST["vit"], {"image"}, 6, 0):
        assert (layout.text.width, layout.text.layers) == (8, 1)
    for layout in sample_layouts(LARGEST["resnet"], {"text"}, 6, 0):
        assert (layout.image.width, layout.image.layers) == (4, [1, 1, 1, 1])


def test_a_family_with_few_layouts_gives_those() -> None:
    layouts = sample_layouts(resnet([1, 1, 1, 1], 16), {"image"}, 48, 0)

    assert sorted(layout.image.width for layout in layouts) == [2, 4, 6, 8, 10, 12, 14, 16]
