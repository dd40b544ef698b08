"""An estimate of the GPU memory that a stage needs, and the warning that it may be too much."""

import torch
from tinyclip.schemas import JobSpec, Layout
from tinyclip.schemas.layouts import AnyLayout
from tinyclip.schemas.spec import StageSpec, WorkerRange

from tinyclip_workers.plan.diagnostics import Diagnostics

COMMON_GPU_BYTES = 80e9
"""Memory of a data-centre GPU, assumed where this machine has none."""
FP32_BYTES, HALF_BYTES = (16, 16, 8), (20, 8, 4)
"""Bytes that a block of a transformer keeps for its gradient, for each token, per channel of the residual stream (which is fp32),
channel of its heads, and MLP unit: with fp32 products and with bf16 or fp16."""


def check_memory(spec: JobSpec, stage: StageSpec, largest: AnyLayout, device: str, diagnostics: Diagnostics) -> None:
    """Warn if the image tower of a stage's largest model alone keeps more than a GPU has. Only our ViTs are estimated."""
    if not isinstance(largest, Layout) or device != "cuda" or spec.micro_batch is not None or spec.gradient_checkpointing:
        return
    workers = spec.resources.workers
    pairs = (stage.batch_size or spec.batch_size) // (workers.min if isinstance(workers, WorkerRange) else workers)
    needed = pairs * image_activations(largest, half=spec.precision != "fp32")
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else COMMON_GPU_BYTES
    memory *= spec.resources.gpus_per_worker
    if needed > memory:
        diagnostics.warn(
            f"stage {stage.name}: the image tower keeps about {needed / 1e9:.0f} GB for the gradient of {pairs} pairs a worker, "
            f"and {_gpu(spec)} has {memory / 1e9:.0f} GB; set micro_batch: auto or gradient_checkpointing: true, or use more "
            "workers"
        )


def _gpu(spec: JobSpec) -> str:
    share = spec.resources.gpus_per_worker
    return "a GPU" if share == 1 else f"its share of a GPU ({share:g})"


def image_activations(layout: Layout, *, half: bool) -> int:
    """Return the bytes that a ViT keeps of one image for the gradient, with fused attention; 0 for a ResNet."""
    image = layout.image
    if not image.heads or not image.mlp or not image.patch_size:
        return 0
    channel, head_channel, unit = HALF_BYTES if half else FP32_BYTES
    tokens = (image.image_size // image.patch_size) ** 2 + 1
    blocks = zip(image.heads, image.mlp, strict=True)
    return tokens * sum(channel * image.width + head_channel * heads * image.head_width + unit * mlp for heads, mlp in blocks)
