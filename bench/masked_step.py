"""Cost of masks: `python bench/masked_step.py [--batch 8] [--steps 9] [--threads 1] [--device cpu] [--profile]`.

Forward and backward of both towers of the teacher ViT-B/32 with random weights, through the affinity loss, with and without
masks over every channel, head and MLP unit. Both share their weights and alternate in one run, so that other load on the machine
affects both alike. Prints the median of each and the median of the ratios of neighbouring steps.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.masked import MaskedTowers, Noise
from tinyclip_workers.model.precision import precision_of
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip, TwoTowers, normalized
from tinyclip_workers.training.gradient_cache import GradientCache
from tinyclip_workers.training.objective.losses import StudentEmbeddings, TeacherEmbeddings
from tinyclip_workers.training.objective.terms import EmbeddedBatch, objective_terms, weighted_sum
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

WARM_UP = 2
SPARSITY = 0.5
"""Target of the constraint; the masks themselves keep nearly everything, as at the start of a search."""

CLOCKS = ("wall_time", "cpu_time")

Step = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--model", default="ViT-B-32", choices=[name for name, it in PRESETS.items() if it.image.kind == "vit"])
    parser.add_argument("--profile", action="store_true", help="print the masked step's time by operation instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plain, masked = steps_of(arguments.model, arguments.batch, torch.device(arguments.device), arguments.precision)
    for step in range(WARM_UP):
        plain(step)
        masked(step)
    if arguments.profile:
        show_profile(plain, masked)
        return
    taken = [(seconds(plain, step, arguments.device), seconds(masked, step, arguments.device)) for step in range(arguments.steps)]
    result = {**vars(arguments), "torch": torch.__version__}
    for kind, clock in enumerate(CLOCKS if arguments.device == "cpu" else CLOCKS[:1]):
        result[clock] = summary([(unmasked[kind], masked[kind]) for unmasked, masked in taken])
    print(json.dumps(result))


def summary(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    unmasked, masked = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(under_masks / plain for plain, under_masks in pairs)
    middle = [round(ratio, 3) for ratio in statistics.quantiles(ratios)] if len(ratios) > 1 else ratios
    return {"unmasked_ms": round(unmasked), "masked_ms": round(masked), "ratio": middle[len(middle) // 2], "quartiles": middle}


def steps_of(model: str, batch: int, device: torch.device, precision: str) -> tuple[Step, Step]:
    """Return a forward and backward pass without and with masks, on the same weights and pairs; gradients are discarded."""
    torch.manual_seed(0)
    layout = PRESETS[model]
    clip = Clip(layout)
    clip.load_state_dict(build_model(layout).state_dict())
    towers = MaskedTowers(clip, layout, ("image", "text"), Constraint(0.0, SPARSITY, 1)).to(device)
    size, text = layout.image_size, layout.text
    images_BCHW = torch.randn(batch, 3, size, size, device=device)
    tokens_BT = torch.randint(1, text.vocab_size - 1, (batch, text.context_length), device=device)
    tokens_BT[:, -1] = text.vocab_size - 1  # texts of full length
    teacher = TeacherEmbeddings(*(normalized(torch.randn(batch, layout.embed_dim, device=device)) for _ in range(2)), scale=50.0)
    generator = torch.Generator().manual_seed(1)

    def learn(student: nn.Module, noise: Noise | None = None, penalty: Tensor | None = None) -> None:
        student.zero_grad(set_to_none=True)
        cache = GradientCache(student, precision_of(precision, device))
        embedded = StudentEmbeddings(*cache.forward(images_BCHW, tokens_BT, noise))
        terms = objective_terms({"affinity": 1.0}, EmbeddedBatch(embedded, [teacher]))
        cache.backward(weighted_sum({"affinity": 1.0}, terms), penalty)

    plain = TwoTowers(clip)
    return lambda _: learn(plain), lambda step: learn(towers, towers.noise(generator), towers.sparsity_penalty(step).loss)


def seconds(step: Step, number: int, device: str) -> tuple[float, float]:
    """Return the wall time and the CPU time of a step."""
    clock, processor = time.perf_counter(), time.process_time()
    step(number)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - processor


def show_profile(plain: Step, masked: Step) -> None:
    for name, step in (("without masks", plain), ("with masks", masked)):
        with profile(activities=[ProfilerActivity.CPU], record_shapes=False) as trace:
            step(0)
        print(name)
        print(trace.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=40))


if __name__ == "__main__":
    main()
