"""What only a GPU can show (`make test-gpu`)."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.model.blocks import causal_block
from tinyclip_workers.training.auto_settings.micro_batch import measure_micro_batch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.workers.auto_stages import BATCH, STUDENT, all_tensors, auto, batches_of, spec_of, train, trainer_of
from tests.workers.layouts import Config, open_clip_model
from tests.workers.shapes_data import write_shards

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
MANUAL = {"name": "manual", "inherit": "manual", "student": STUDENT.model_dump(exclude_none=True), "train": {"steps": 3}}
MASKED = {**auto(0.5, prune_step=2), "train": {"steps": 3}}
STAGES = pytest.mark.parametrize("stage", [MANUAL, MASKED], ids=["open_clip", "masked"])
LARGE: Config = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 12, "width": 256, "patch_size": 4, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 12},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shapes"))


@STAGES
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_step_waits_once(shards: str, stage: dict[str, Any], micro_batch: int | None) -> None:
    trainer = trainer_of(spec_of(shards, stage, micro_batch=micro_batch), device=CUDA)
    batch: Batch = next(batches_of(trainer)).pin_memory()
    trainer.train_step(batch)  # allocates the optimizer's state

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert len([w for w in caught if "synchroniz" in str(w.message)]) == 1


@STAGES
@pytest.mark.parametrize(("precision", "tries"), [("fp32", 1), ("bf16", 1), ("fp16", 12)])
def test_it_trains_in_precision(shards: str, stage: dict[str, Any], precision: str, tries: int) -> None:
    trainer = trainer_of(spec_of(shards, stage, precision=precision), device=CUDA)
    batch = next(batches_of(trainer))

    # The scale of fp16's gradients starts too high and is halved until they are finite.
    assert any(trainer.train_step(batch)[0].finite for _ in range(tries))


@STAGES
def test_the_loss_is_that_of_a_cpu(shards: str, stage: dict[str, Any]) -> None:
    losses: list[list[float]] = []
    for device in (torch.device("cpu"), CUDA):
        found: list[float] = []
        trainer = trainer_of(spec_of(shards, stage, precision="fp32"), device=device)
        train(trainer, progress=lambda r, found=found: found.append(r.loss))
        losses.append(found)

    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.filterwarnings("ignore")  # torch's own, as it compiles
@STAGES
def test_compiled_blocks_compute_the_same(shards: str, stage: dict[str, Any]) -> None:
    losses: list[list[float]] = []
    for compiled in (False, True):
        found: list[float] = []
        trainer = trainer_of(spec_of(shards, stage, compile=compiled, precision="fp32"), device=CUDA)
        train(trainer, progress=lambda r, found=found: found.append(r.loss))
        losses.append(found)

    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@STAGES
def test_checkpointing_gives_the_same_student(shards: str, stage: dict[str, Any]) -> None:
    without, with_it = (
        all_tensors(train(trainer_of(spec_of(shards, stage, gradient_checkpointing=on, precision="fp32"), device=CUDA)))
        for on in (False, True)
    )

    for name, tensor in without.items():
        torch.testing.assert_close(with_it[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_checkpointing_takes_less_memory() -> None:
    peaks = []
    for on in (False, True):
        model = open_clip_model(LARGE).to(CUDA)
        model.set_grad_checkpointing(on)
        images = torch.randn(64, 3, 32, 32, device=CUDA)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.encode_image(images).square().sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)

    assert peaks[1] < peaks[0] / 2


def test_text_attention_runs_as_flash_attention() -> None:
    model = open_clip_model(LARGE).to(CUDA)
    x_BLd = torch.randn(4, 24, 256, device=CUDA)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.autocast("cuda", dtype=torch.bfloat16):
        out_BLd = causal_block(model.transformer.resblocks[0], x_BLd, model.attn_mask[:24, :24])

    assert out_BLd.isfinite().all()


@STAGES
def test_micro_batch_auto_takes_a_part_that_fits(shards: str, stage: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(spec_of(shards, stage, micro_batch="auto"), device=CUDA)
    whole, _ = measure_micro_batch(trainer, batches_of(trainer))
    monkeypatch.setattr("tinyclip_workers.training.auto_settings.micro_batch._budget", lambda *_: (whole.peaks[BATCH] or 0) - 1)
    part, batches = measure_micro_batch(trainer, batches_of(trainer))
    trainer.micro_batch = part.micro_batch

    assert whole.micro_batch == BATCH
    assert part.micro_batch is not None
    assert part.micro_batch < BATCH
    assert trainer.train_step(next(batches))[0].finite


def test_the_bench_measures_speed_and_memory(tmp_path: Path) -> None:
    options = ["--presets", "tiny", "--teacher", "tiny", "--precisions", "bf16", "--compile", "off", "--batch", "64"]
    command = [sys.executable, "bench/gpu.py", *options, "--steps", "2", "--out", str(tmp_path / "gpu.jsonl")]

    subprocess.run(command, check=True, cwd=Path(__file__).parents[3])

    [result] = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    assert result["pairs_per_second"] > 0
    assert result["peak_memory_gb"] > 0
