"""The command line of the reference's training runs, as the fixtures record it (METHOD sections 2 to 5).

Every flag of the published parser that can change the numbers of a run is read here, beside the fixtures' own short forms
(`--clip` for `--norm_gradient_clip`, `--prune` for both towers under one constraint). Flags that only say where files are, what
is logged or how an equal result is computed are accepted and ignored. Any other flag is an error.
"""

import argparse
import math
from collections.abc import Sequence
from typing import NoReturn

from tinyclip.schemas.spec import OptimizerSpec
from tinyclip_workers.model.masked import Tower
from tinyclip_workers.model.sparsity import Constraint

IGNORED_SWITCHES = (
    "quiet", "debug", "distillation", "local-loss", "gather-with-grad", "grad-checkpointing", "use-bn-sync", "log-local",
    "save-most-recent", "ddp-static-graph", "no-set-device-rank", "copy-codebase", "dataset-resampled",
)  # fmt: skip
"""Seeds, threads and data are in the arrays; the fixtures' runs gather with gradient, in fp32, without batch norm."""
IGNORED_VALUES = (
    "threads", "seed", "name", "logs", "output", "workers", "model", "pretrained", "pretrained-image-file",
    "pretrained-text-file", "distillation-teacher", "train-data", "val-data", "train-num-samples", "val-num-samples",
    "dataset-type", "imagenet-val", "imagenet-v2", "save-frequency", "zeroshot-frequency", "val-frequency", "report-to",
    "wandb-notes", "dist-url", "dist-backend", "grad-cache-times",
)  # fmt: skip


class ReferenceArguments:
    """Hyper-parameters of one run."""

    def __init__(self, line: Sequence[str]) -> None:
        """Raises ValueError for a flag or value without a meaning here."""
        found = _parser().parse_args(line)
        self.steps: int = found.steps
        self.batch: int = found.batch_size
        self.quick_gelu: bool = found.force_quick_gelu
        self.clip_norm: float = found.clip or math.inf
        self.log_scale = math.log(found.logit_scale) if found.logit_scale else None
        """Of the fixed temperature of teacher and student; `None`: the teacher's own, and a learned one."""
        self.objective = {"affinity": found.alpha * found.weight, "contrastive": (1 - found.alpha) * found.weight}
        self.towers: tuple[Tower, ...] = tuple(
            tower for tower, pruned in (("image", found.prune_image), ("text", found.prune_text)) if pruned or found.prune
        )
        self.joint: bool = found.prune or found.total_loss_flag
        self.search_steps: int = found.prune_step
        self.constraint = Constraint(found.start_sparsity, found.target_sparsity, found.sparsity_warmup)
        self.lambda_lr: float = found.l0lr
        """Negative: gradient ascent."""
        self.constant_lr: bool = found.skip_scheduler
        self.optimizer = OptimizerSpec(
            lr=found.lr,
            warmup_steps=found.prune_step if self.towers else found.warmup,
            weight_decay=found.wd,
            betas=(found.beta1, found.beta2),
            eps=found.eps,
        )

    @property
    def prune_step(self) -> int | None:
        """The step before which masks are folded. The reference folds only if both towers have masks (METHOD F11)."""
        return self.search_steps if len(self.towers) == 2 and self.search_steps < self.steps else None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}: a flag of the reference without a meaning in tests/workers/reference_arguments.py")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(allow_abbrev=False, add_help=False)
    for name in IGNORED_SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    for name in IGNORED_VALUES:
        parser.add_argument(f"--{name}")
    for name in ("steps", "batch-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    numbers = {
        "lr": 5e-4, "wd": 0.2, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6,
        "logit-scale": 50.0, "start-sparsity": 0.0, "target-sparsity": 0.25, "l0lr": -0.02,
    }  # fmt: skip
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    for name, count in {"warmup": 0, "prune-step": 3000, "sparsity-warmup": 1000}.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--clip", "--norm_gradient_clip", "--norm-gradient-clip", type=float, default=0.0)
    parser.add_argument("--alpha", "--distillation-alpha", type=float, default=1.0)
    parser.add_argument("--weight", "--distillation-weight", type=float, default=1.0)
    for name in ("prune", "prune-image", "prune-text", "total-loss-flag", "force-quick-gelu", "skip-scheduler"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--precision", choices=["fp32"])
    return parser
