"""A whole training run as the reference's main loop does it, from the engine's parts (METHOD sections 2 to 6).

What is parity here and not in the engine's own loop: the student starts at its own temperature and is set to the fixed one
after the first step (F8), the logit scale has a gradient that counts in the clip norm (F18), and the fold has fault F1.

Everything runs in double precision: Adam turns the rounding of gradients near 0 into differences of 5e-4 in ten steps, and one
side's rounding (the reference's) is enough in a comparison.
"""

import math
from typing import Any

import torch
from tinyclip.schemas.spec import OptimizerSpec
from tinyclip_workers.model.inherit import inherit_manual
from tinyclip_workers.model.masked import MaskedTowers, Noise
from tinyclip_workers.model.masks import GROUPS
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip, TwoTowers
from tinyclip_workers.training.distributed import world_size
from tinyclip_workers.training.losses import StudentEmbeddings, affinity_loss
from tinyclip_workers.training.optimizer import learning_rate, make_optimizer, mask_optimizer, set_learning_rate
from tinyclip_workers.training.teachers import FrozenTeacher
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.workers.layouts import layout_of, open_clip_model
from tests.workers.one_step import accumulate_gradients
from tests.workers.parity import Arrays, document

DOCUMENT: dict[str, Any] = document("traj.json")
Told = dict[str, list[Any]]

KNOWN = {f"--{name}" for name in (
    "steps", "batch-size", "threads", "seed", "quiet", "lr", "warmup", "clip", "alpha", "weight", "wd",
    "prune", "prune-step", "sparsity-warmup", "target-sparsity", "start-sparsity",
)}  # fmt: skip
"""What a run's command line may say. Draws and data are in the arrays: seeds and threads change nothing here."""


class Args:
    """A run's hyper-parameters, as they stood on the reference's command line."""

    def __init__(self, tag: str) -> None:
        self._line: list[str] = DOCUMENT["runs"][tag]["args"]
        unknown = {word for word in self._line if word.startswith("--")} - KNOWN
        assert not unknown, f"{tag}: what do {unknown} mean?"
        self.steps = int(self.number("steps", 0))
        self.batch = int(self.number("batch-size", 0))
        self.clip_norm = self.number("clip", math.inf)
        self.prune_step = int(self.number("prune-step", 0)) if "--prune" in self._line else None
        alpha, weight = self.number("alpha", 1.0), self.number("weight", 1.0)
        self.objective = {"affinity": alpha * weight, "contrastive": (1 - alpha) * weight}
        self.constraint = Constraint(
            self.number("start-sparsity", 0.0), self.number("target-sparsity", 0.0), int(self.number("sparsity-warmup", 0))
        )

    def number(self, name: str, default: float) -> float:
        return float(self._line[self._line.index(f"--{name}") + 1]) if f"--{name}" in self._line else default

    def optimizer(self) -> OptimizerSpec:
        warmup = self.prune_step if self.prune_step is not None else int(self.number("warmup", 0))
        return OptimizerSpec(lr=self.number("lr", 0.0), warmup_steps=warmup, weight_decay=self.number("wd", 0.2))


class Run:
    """One worker's part of a run; `train` gives what the fixtures hold."""

    def __init__(self, tag: str, rank: int) -> None:
        self.args, self.rank, self.arrays = Args(tag), rank, Arrays("traj.npz", f"{tag}/")
        data = Arrays("traj.npz")
        self.images, self.tokens = data["images"].double(), data["tokens"].long()
        # Both temperatures are fixed at what the fixtures show from the second step on.
        self.fixed = self.arrays["teacher_logit_scale_at_step_start"][-1].item()
        teacher = open_clip_model(DOCUMENT["teacher"]).double()
        teacher.load_state_dict(data.under("teacher/"))
        self.teacher, self.teacher_scale = FrozenTeacher(teacher, math.exp(self.fixed)), teacher.logit_scale.item()
        self.own_scale = self.arrays["student_logit_scale_at_step_start"][0].item()
        self.student, self.towers = (
            self._manual(teacher.state_dict()) if self.args.prune_step is None else self._auto(teacher.state_dict())
        )
        with torch.no_grad():
            self.student.logit_scale.fill_(self.own_scale)
        self._start_training()

    def _manual(self, teacher: dict[str, Tensor]) -> tuple[Any, nn.Module]:
        config = DOCUMENT["student_manual"]
        student = open_clip_model(config).double()
        student.load_state_dict(inherit_manual(student, teacher, layout_of(config), layout_of(DOCUMENT["teacher"])))
        return student, TwoTowers(student)

    def _auto(self, teacher: dict[str, Tensor]) -> tuple[Any, nn.Module]:
        layout = layout_of(DOCUMENT["teacher"])
        student = Clip(layout).double()
        student.load_state_dict(teacher)
        towers = MaskedTowers(student, layout, ("image", "text"), self.args.constraint, granularity="paper").double()
        with torch.no_grad():
            for tower, masks in towers.tower_masks().items():
                for group, loga in masks.loga().items():
                    loga.copy_(self.arrays[f"{tower}_loga_init_{group}"].flatten())
        self.mask_optimizer = mask_optimizer(towers.tower_masks())
        return student, towers

    def _start_training(self) -> None:
        self.towers.register_forward_hook(lambda _, __, output: self._look_at(output))
        self.optimizer = make_optimizer(self.student, self.args.optimizer())
        self.wrapped = DistributedDataParallel(self.towers) if world_size() > 1 else self.towers

    def train(self) -> dict[str, Tensor]:
        told: Told = {}
        for step in range(self.args.steps):
            if step == self.args.prune_step:
                told |= self._prune(told)
            self._step(step, told)
        final = {f"final/{name}": tensor for name, tensor in self.student.state_dict().items()}
        return {name: torch.as_tensor(value) for name, value in told.items()} | final

    def _step(self, step: int, told: Told) -> None:
        self._number = step
        self._tell_start(told)
        lr = learning_rate(step, self.args.steps, self.args.optimizer())
        set_learning_rate(self.optimizer, lr)
        parameters = [p for p in self.towers.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.grad = None

        noise, penalty = self._noise(step), self._pull(step)
        loss, terms = accumulate_gradients(
            self.wrapped, [self.teacher], self._batch(step), self.args.objective, noise=noise, penalty=penalty
        )
        self.teacher_scale = self.fixed
        norm = nn.utils.clip_grad_norm_(parameters, self.args.clip_norm)
        self.optimizer.step()
        if isinstance(self.towers, MaskedTowers):
            self.mask_optimizer.step()
            self.towers.clamp_()
        with torch.no_grad():
            self.student.logit_scale.fill_(self.fixed)

        told.setdefault("soft_i2t_t2i", []).append(self._directions)
        for name, value in {"loss": loss, "grad_norm": norm, "affinity": terms["affinity"]}.items():
            told.setdefault(name, []).append(value.item())
        told.setdefault("lr", []).append(lr)

    def _look_at(self, student: tuple[Tensor, Tensor, Tensor]) -> None:
        """The affinity's two directions, which the engine's loop adds up."""
        with torch.no_grad():
            both = affinity_loss(StudentEmbeddings(*student), [self.teacher(*self._batch(self._number))])
        self._directions = [direction.item() for direction in both]

    def _noise(self, step: int) -> Noise | None:
        if not isinstance(self.towers, MaskedTowers):
            return None
        return {
            tower: {group: self.arrays[f"rank{self.rank}_u_{tower}_{group}"][step].double().flatten() for group in GROUPS}
            for tower in self.towers.tower_masks()
        }

    def _pull(self, step: int) -> Tensor | None:
        return self.towers.sparsity_penalty(step).loss if isinstance(self.towers, MaskedTowers) else None

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        global_batch = self.args.batch * world_size()
        first = step % (len(self.images) // global_batch) * global_batch + self.rank * self.args.batch
        rows = slice(first, first + self.args.batch)
        return self.images[rows], self.tokens[rows]

    def _prune(self, told: Told) -> Told:
        assert isinstance(self.towers, MaskedTowers)
        self._tell_masks(told, self.args.steps - len(told["loss"]))  # as they stay
        final: Told = {
            f"{tower}_loga_final_{group}": loga.tolist()
            for tower, masks in self.towers.tower_masks().items()
            for group, loga in masks.loga().items()
        }
        self.student = self.towers.folded(parity=True)
        self.towers = TwoTowers(self.student)
        self._start_training()
        return final

    def _tell_start(self, told: Told) -> None:
        told.setdefault("step", []).append(self._number)
        told.setdefault("student_logit_scale_at_step_start", []).append(self.student.logit_scale.item())
        told.setdefault("teacher_logit_scale_at_step_start", []).append(self.teacher_scale)
        self._tell_masks(told)

    def _tell_masks(self, told: Told, times: int = 1) -> None:
        if isinstance(self.towers, MaskedTowers):
            masks = self.towers.tower_masks().values()
            lambdas = [m.lambda_1.item() for m in masks] + [m.lambda_2.item() for m in masks]
            told.setdefault("lambda_at_step_start", []).extend([lambdas] * times)
            told.setdefault("hidden_loga_at_step_start", []).extend([torch.cat([m.hidden for m in masks]).tolist()] * times)


def train(rank: int, tag: str) -> dict[str, Tensor]:
    return Run(tag, rank).train()
