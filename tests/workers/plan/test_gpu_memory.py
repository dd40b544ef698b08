"""A plan warns of batches that a GPU has no memory for, and names the remedies."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from tinyclip.schemas import JobSpec, Layout, Plan
from tinyclip_workers.model.architecture import build_model, layout_from_config
from tinyclip_workers.plan import memory
from tinyclip_workers.plan.diagnostics import Diagnostics
from tinyclip_workers.plan.memory import check_memory, image_activations
from tinyclip_workers.plan.specs import make_plan

from tests.workers.auto_stages import RESNET, TEXT, VIT
from tests.workers.layouts import Config, layout_of
from tests.workers.plan_specs import spec, write_data

DEEP: Config = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 8, "width": 128, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
}
GPU_BYTES = 80e9


def published(name: str) -> Layout:
    return layout_from_config(open_clip.get_model_config(name))


def warnings_of(layout: Layout, device: str = "cuda", **changes: Any) -> list[str]:
    document = {
        "name": "large", "teacher": {"model": "local-dir:x"}, "data": {"train": {"shards": "x.tar", "caption_key": "txt"}},
        "stages": [{"name": "only", "inherit": "manual", "student": {"preset": "ViT-B-16"}, "train": {"steps": 1}}],
        "batch_size": 4096, "resources": {"workers": 4}, **changes,
    }  # fmt: skip
    job, diagnostics = JobSpec.model_validate(document), Diagnostics()
    check_memory(job, job.stages[0], layout, device, diagnostics)
    return diagnostics.warnings


@pytest.fixture(autouse=True)
def a_planner_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_share_of_a_gpu_has_less() -> None:
    resources = {"workers": 1, "gpus_per_worker": 0.1}

    [warning] = warnings_of(published("ViT-B-16"), batch_size=256, resources=resources)

    assert "and its share of a GPU (0.1) has 8 GB" in warning
    assert warnings_of(published("ViT-B-16"), batch_size=256, resources={"workers": 1}) == []


def test_1024_pairs_of_a_vit_b_16_exceed_80_gb() -> None:
    [warning] = warnings_of(published("ViT-B-16"))

    assert warning.startswith("stage only: the image tower keeps about 82 GB for the gradient of 1024 pairs a worker")
    assert "set micro_batch: auto or gradient_checkpointing: true" in warning


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch": "auto"}, {"micro_batch": 256}, {"gradient_checkpointing": True}, {"resources": {"workers": 8}},
        {"batch_size": 2048}, {"device": "cpu"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_each_remedy_ends_the_warning(changes: dict[str, Any]) -> None:
    assert warnings_of(published("ViT-B-16"), **changes) == []


def test_fp32_needs_more() -> None:
    layout = published("ViT-B-16")

    assert image_activations(layout, half=False) > 1.3 * image_activations(layout, half=True)
    assert len(warnings_of(layout, precision="fp32", batch_size=3072)) == 1


def test_a_resnet_is_not_estimated() -> None:
    layout = published("RN50")

    assert image_activations(layout, half=True) == 0
    assert warnings_of(layout, batch_size=1 << 20) == []


def test_the_estimate_is_what_autograd_keeps() -> None:
    layout, kept = layout_of(DEEP), {}
    model = build_model(layout)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.encode_image(torch.randn(4, 3, 64, 64))  # its graph keeps the storages, so no address is used twice
    found = sum(size for address, size in kept.items() if address not in weights)

    assert output.requires_grad
    assert found / 4 == pytest.approx(image_activations(layout, half=False), rel=0.15)


def plan_of(folder: Path, image: dict[str, Any], **changes: Any) -> list[str]:
    stage = {"name": "only", "inherit": "none", "student": {"embed_dim": 32, "image": image, "text": TEXT}, "train": {"steps": 1}}
    planned = make_plan(JobSpec.model_validate(spec(write_data(folder)) | {"stages": [stage], **changes}))
    assert isinstance(planned, Plan)
    return planned.warnings


def test_a_plan_has_the_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "COMMON_GPU_BYTES", 1000.0)

    warnings = plan_of(tmp_path, VIT, resources={"device": "cuda"})

    assert sum("micro_batch: auto" in warning for warning in warnings) == 1


def test_micro_batch_auto_and_compile_are_of_little_use_for_a_resnet(tmp_path: Path) -> None:
    warnings = plan_of(tmp_path, RESNET, micro_batch="auto", compile=True)

    assert any("auto processes the whole batch" in warning for warning in warnings)
    assert any("have no effect on a ResNet" in warning for warning in warnings)
