"""The latency model: it finds known costs in noisy measurements, and predicts other layouts."""

import random

import pytest
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.searches import Hardware
from tinyclip_workers.costs.model import Key, fit, predict, relative_errors
from tinyclip_workers.costs.sampling import sample_layouts

from tests.workers.costs.families import resnet, vit

VIT, RESNET = vit(heads=[8] * 6, mlp=[256] * 6, width=64), resnet([2, 3, 4, 2], 32)
KEY = Key("torch", "image", 2, 1)
MS = {"calls": 0.2, "blocks": 0.1, "products": 1e-7, "attention": 3e-7, "convolutions": 0.01, "products_3x3": 2e-7}


def known_ms(layout: Layout, key: Key = KEY) -> float:
    return sum(MS.get(name, 0) * value for name, value in key.terms(layout).items())


@pytest.mark.parametrize("largest", [VIT, RESNET], ids=["vit", "resnet"])
def test_known_costs_are_found(largest: Layout) -> None:
    layouts = sample_layouts(largest, {"image"}, 24, 0)
    others = sample_layouts(largest, {"image"}, 24, 1)

    cost = fit(KEY, layouts, [known_ms(layout) for layout in layouts])

    assert cost.family == largest.image.kind
    assert cost.layouts == 24
    assert cost.p90_error < 0.01
    assert max(relative_errors([predict(cost, KEY, layout) for layout in others], list(map(known_ms, others)))) < 0.02


def test_measurements_that_were_slowed_down_do_not_move_it() -> None:
    layouts, generator = sample_layouts(VIT, {"image"}, 40, 0), random.Random(0)
    factors = [1.5 if number % 10 == 0 else generator.uniform(1, 1.02) for number in range(40)]
    measured = [known_ms(layout) * factor for layout, factor in zip(layouts, factors, strict=True)]

    cost = fit(KEY, layouts, measured)

    errors = sorted(relative_errors([predict(cost, KEY, layout) for layout in layouts], list(map(known_ms, layouts))))
    assert errors[len(errors) // 2] < 0.02
    assert errors[-1] < 0.05
    assert 0 < cost.median_error < 0.02
    assert cost.p90_error > cost.median_error


def test_coefficients_are_never_negative() -> None:
    layouts, generator = sample_layouts(VIT, {"image"}, 20, 0), random.Random(0)

    cost = fit(KEY, layouts, [generator.uniform(1, 2) for _ in layouts])

    assert min(cost.coefficients.values()) >= 0


def test_two_families_and_few_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 layouts of one family"):
        fit(KEY, [VIT] * 7, [1.0] * 7)
    with pytest.raises(ValueError, match="of one family"):
        fit(KEY, [VIT] * 7 + [RESNET], [1.0] * 8)


def test_a_layout_of_another_family_is_not_predicted() -> None:
    layouts = sample_layouts(VIT, {"image"}, 12, 0)
    cost = fit(KEY, layouts, list(map(known_ms, layouts)))
    with pytest.raises(ValueError, match="is of a vit, not of a resnet"):
        predict(cost, KEY, RESNET)


def test_a_key_is_text_and_a_constraint() -> None:
    hardware = Hardware(engine="openvino-int8", batch=8, tower="text", threads=4)

    key = Key.of(hardware)

    assert str(key) == "openvino-int8:text:8:4"
    assert Key.parse(str(key)) == key
    with pytest.raises(ValueError, match="there is no tower audio"):
        Key.parse("torch:audio:1:1")


def test_openvino_converts_our_own_towers() -> None:
    torch_terms, openvino_terms = (Key(engine, "image", 1, 1).terms(VIT) for engine in ("torch", "openvino"))

    assert (torch_terms["own_blocks"], torch_terms["fused_blocks"]) == (0, 6)
    assert (openvino_terms["own_blocks"], openvino_terms["fused_blocks"]) == (6, 0)
