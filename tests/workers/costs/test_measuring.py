"""Measured latencies: of each key of each layout, and larger ones for more work."""

from pathlib import Path

import pytest
import torch
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.costs.measuring import (
    BuiltEngine,
    describe_hardware,
    device_of,
    measure_engines,
    measure_layouts,
    random_model,
)
from tinyclip_workers.costs.model import Key
from tinyclip_workers.engines.builder import EngineBuilder

from tests.workers.costs.families import LAYOUTS, resnet, vit

CPU = torch.device("cpu")


def measured(tmp_path: Path, layouts: list[Layout], *keys: str) -> list[dict[str, float]]:
    parsed = [[Key.parse(key) for key in keys]] * len(layouts)
    return measure_layouts(layouts, parsed, tmp_path, CPU, rounds=2, seconds=0.005)


def test_both_towers_of_all_families_are_measured(tmp_path: Path) -> None:
    keys = ("torch:image:1:1", "torch:text:2:1")

    latencies = measured(tmp_path, list(LAYOUTS.values()), *keys)

    assert [set(of_layout) for of_layout in latencies] == [set(keys)] * len(LAYOUTS)
    assert all(0 < ms < 1000 for of_layout in latencies for ms in of_layout.values())


def test_more_work_takes_longer(tmp_path: Path) -> None:
    small, large = measured(
        tmp_path, [vit(), vit(heads=[32] * 4, mlp=[1024] * 4, width=256)], "torch:image:1:1", "torch:image:32:1"
    )

    assert small["torch:image:1:1"] < small["torch:image:32:1"]
    assert 2 * small["torch:image:32:1"] < large["torch:image:32:1"]


def test_openvino_is_measured(tmp_path: Path) -> None:
    (latencies,) = measured(tmp_path, [resnet()], "openvino:image:2:1")

    assert latencies["openvino:image:2:1"] > 0


def test_an_engine_that_the_device_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no engine auto on cpu"):
        measured(tmp_path, [vit()], "auto:image:1:1")


def test_an_engine_that_was_built_is_measured_and_threads_are_as_before() -> None:
    builder = EngineBuilder(random_model(vit()), None, device=CPU)
    engine, threads = builder.build("torch", builder.report("torch", "torch")), torch.get_num_threads()

    built = [BuiltEngine(engine, vit(), Key("torch", tower, 1, 2)) for tower in ("image", "text")]

    assert all(ms > 0 for ms in measure_engines(built, CPU, rounds=1, seconds=0.001))
    assert torch.get_num_threads() == threads


def test_random_weights_do_not_change_the_random_state() -> None:
    before = torch.random.get_rng_state()

    random_model(vit())

    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_hardware_has_a_name() -> None:
    assert describe_hardware(device_of("cpu"))
