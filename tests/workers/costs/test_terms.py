"""The terms of a layout: their products are its multiply-accumulates, and masks see the same latency."""

import pytest
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.costs.terms import count_terms, family_of, term_names
from tinyclip_workers.model.summary import image_macs, meta_model, text_macs

from tests.workers.costs.families import LAYOUTS, resnet, vit

PRODUCTS = (
    "stem_products", "products", "attention", "products_1x1", "products_3x3", "pool_products", "pool_attention",
)  # fmt: skip


@pytest.mark.parametrize("layout", [pytest.param(layout, id=name) for name, layout in LAYOUTS.items()])
@pytest.mark.parametrize("batch", [1, 3])
def test_products_are_those_of_the_summary(layout: Layout, batch: int) -> None:
    image, text = (count_terms(layout, tower, batch, library=False) for tower in ("image", "text"))

    assert sum(image.get(name, 0) for name in PRODUCTS) == batch * image_macs(layout)
    assert sum(text.get(name, 0) for name in PRODUCTS) == batch * text_macs(layout)


@pytest.mark.parametrize("layout", [pytest.param(layout, id=name) for name, layout in LAYOUTS.items()])
def test_weights_are_all_matrices_and_kernels(layout: Layout) -> None:
    model = meta_model(layout)
    tables = ("positional_embedding", "token_embedding.weight")
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 1 and not name.endswith(tables)}
    image = sum(size for name, size in sizes.items() if name.startswith("visual."))

    assert count_terms(layout, "image", 4, library=False)["weights"] == image
    assert count_terms(layout, "text", 4, library=False)["weights"] == sum(sizes.values()) - image


def test_names_are_in_the_order_of_the_counts() -> None:
    for layout in (vit(), resnet()):
        for tower in ("image", "text"):
            assert tuple(count_terms(layout, tower, 1, library=True)) == term_names(family_of(layout, tower))


def test_blocks_of_a_library_are_told_apart_by_the_parity_of_heads() -> None:
    even, odd = (count_terms(vit(heads=[heads] * 2, width=8 * heads), "image", 1, library=True) for heads in (2, 3))

    assert (even["own_blocks"], even["fused_blocks"], even["unfused_blocks"]) == (0, 2, 0)
    assert (odd["own_blocks"], odd["fused_blocks"], odd["unfused_blocks"]) == (0, 0, 2)
