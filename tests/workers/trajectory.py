"""A whole training run as the reference's main loop does it, from the engine's parts (METHOD sections 2 to 6).

What is parity here and not in the engine's own loop: the student starts at its own temperature and is set to the fixed one
after the first step (F8), the logit scale has a gradient that counts in the clip norm (F18), and the fold has fault F1.

Everything runs in double precision: Adam turns the rounding of gradients near 0 into differences of 5e-4 in ten steps, and one
side's rounding (the reference's) is enough in a comparison.
"""

import math
from pathlib import Path
from typing import Any

import torch
from tinyclip_workers.inheritance.leading import inherit_leading
from tinyclip_workers.model.masked import MaskedTowers, Noise
from tinyclip_workers.model.masks import GROUPS
from tinyclip_workers.model.towers import Clip, TwoTowers
from tinyclip_workers.training.distributed import world_size
from tinyclip_workers.training.objective.losses import StudentEmbeddings, affinity_loss
from tinyclip_workers.training.optimizer import learning_rate, make_optimizer, mask_optimizer, set_learning_rate
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.workers.layouts import layout_of, open_clip_model
from tests.workers.one_step import accumulate_gradients
from tests.workers.parity import FOLDER, Arrays, Near, document
from tests.workers.reference_arguments import ReferenceArguments

LOSS, WEIGHTS, EXACT = 1e-4, 5e-4, 1e-6
"""Tolerances of losses, of what optimizers have moved, and of schedules."""
MAX_LOG_SCALE = math.log(100)
FRESH_LOG_SCALE = math.log(1 / 0.07)

Record = dict[str, list[Any]]


class Run:
    """One worker's part of a run; `train` returns what the fixtures hold."""

    def __init__(self, tag: str, rank: int, folder: Path = FOLDER) -> None:
        self.document: dict[str, Any] = document("traj.json", folder)
        self.args = ReferenceArguments(self.document["runs"][tag]["args"])
        self.rank, self.arrays = rank, Arrays("traj.npz", f"{tag}/", folder)
        data = Arrays("traj.npz", "", folder)
        self.images, self.tokens = data["images"].double(), data["tokens"].long()
        self.quick_gelu = self.args.quick_gelu or self.document.get("act") == "QuickGELU"
        teacher = open_clip_model(self.document["teacher"], self.quick_gelu).double()
        teacher.load_state_dict(data.under("teacher/"))
        self.teacher_log_scale = teacher.logit_scale.item()
        self.teacher = FrozenTeacher(teacher, None if self.args.log_scale is None else math.exp(self.args.log_scale))
        self.student, self.towers = self._auto(teacher.state_dict()) if self.args.towers else self._manual(teacher.state_dict())
        with torch.no_grad():
            self.student.logit_scale.fill_(FRESH_LOG_SCALE)
        self._start_training()

    def _manual(self, teacher: dict[str, Tensor]) -> tuple[Any, nn.Module]:
        config = self.document["student_manual"]
        student = open_clip_model(config, self.quick_gelu).double()
        student.load_state_dict(inherit_leading(student, teacher, layout_of(config), layout_of(self.document["teacher"])))
        return student, TwoTowers(student)

    def _auto(self, teacher: dict[str, Tensor]) -> tuple[Any, nn.Module]:
        layout = layout_of(self.document["teacher"]).model_copy(update={"quick_gelu": self.quick_gelu})
        student = Clip(layout).double()
        student.load_state_dict(teacher)
        towers = MaskedTowers(
            student, layout, self.args.towers, self.args.constraint, joint=self.args.joint, granularity="paper"
        ).double()
        with torch.no_grad():
            for tower, masks in towers.tower_masks().items():
                for group, loga in masks.loga().items():
                    loga.copy_(self.arrays[f"{tower}_loga_init_{group}"].flatten())
        self.mask_optimizer = mask_optimizer(towers.tower_masks())
        lambdas = self.mask_optimizer.param_groups[1]
        lambdas["lr"], lambdas["maximize"] = abs(self.args.lambda_lr), self.args.lambda_lr < 0
        return student, towers

    def _start_training(self) -> None:
        self.towers.register_forward_hook(lambda _, __, output: self._observe(output))
        self.optimizer = make_optimizer(self.student, self.args.optimizer)
        self.wrapped = DistributedDataParallel(self.towers) if world_size() > 1 else self.towers

    def train(self) -> dict[str, Tensor]:
        record: Record = {}
        for step in range(self.args.steps):
            if step == self.args.prune_step:
                self._prune(record)
            self._step(step, record)
        self._record_loga(record)
        final = {f"final/{name}": tensor for name, tensor in self.student.state_dict().items()}
        return {name: torch.as_tensor(value) for name, value in record.items()} | final

    def _step(self, step: int, record: Record) -> None:
        self._number = step
        self._record_start(record)
        lr = self.args.optimizer.lr if self.args.constant_lr else learning_rate(step, self.args.steps, self.args.optimizer)
        set_learning_rate(self.optimizer, lr)
        parameters = [p for p in self.towers.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.grad = None

        noise, penalty = self._noise(step), self._sparsity_penalty(step)
        loss, terms = accumulate_gradients(
            self.wrapped, [self.teacher], self._batch(step), self.args.objective, noise=noise, penalty=penalty
        )
        norm = nn.utils.clip_grad_norm_(parameters, self.args.clip_norm)
        self.optimizer.step()
        if isinstance(self.towers, MaskedTowers):
            if step == self.args.search_steps:  # a search that is not folded ends here all the same (F11)
                self.mask_optimizer.param_groups[0]["lr"] = 0.0
            self.mask_optimizer.step()
            self.towers.clamp_()
        self._set_log_scales()

        record.setdefault("soft_i2t_t2i", []).append(self._directions)
        for name, value in {"loss": loss, "grad_norm": norm, "affinity": terms["affinity"]}.items():
            record.setdefault(name, []).append(value.item())
        record.setdefault("lr", []).append(lr)

    def _set_log_scales(self) -> None:
        with torch.no_grad():
            if self.args.log_scale is None:
                self.student.logit_scale.clamp_(0, MAX_LOG_SCALE)
            else:
                self.student.logit_scale.fill_(self.args.log_scale)
                self.teacher_log_scale = self.args.log_scale

    def _observe(self, student: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep both directions of the affinity loss, which the engine's loop adds up."""
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

    def _sparsity_penalty(self, step: int) -> Tensor | None:
        return self.towers.sparsity_penalty(step).loss if isinstance(self.towers, MaskedTowers) else None

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        global_batch = self.args.batch * world_size()
        first = step % (len(self.images) // global_batch) * global_batch + self.rank * self.args.batch
        rows = slice(first, first + self.args.batch)
        return self.images[rows], self.tokens[rows]

    def _prune(self, record: Record) -> None:
        assert isinstance(self.towers, MaskedTowers)
        self._record_masks(record, self.args.steps - len(record["loss"]))  # as they stay
        self._record_loga(record)
        self.student = self.towers.folded_model(parity=True)
        self.towers = TwoTowers(self.student)
        self._start_training()

    def _record_loga(self, record: Record) -> None:
        if isinstance(self.towers, MaskedTowers):
            for tower, masks in self.towers.tower_masks().items():
                record |= {f"{tower}_loga_final_{group}": loga.tolist() for group, loga in masks.loga().items()}

    def _record_start(self, record: Record) -> None:
        record.setdefault("step", []).append(self._number)
        record.setdefault("student_logit_scale_at_step_start", []).append(self.student.logit_scale.item())
        record.setdefault("teacher_logit_scale_at_step_start", []).append(self.teacher_log_scale)
        self._record_masks(record)

    def _record_masks(self, record: Record, times: int = 1) -> None:
        if isinstance(self.towers, MaskedTowers):
            masks = self.towers.tower_masks().values()
            lambdas = [m.lambda_1.item() for m in masks] + [m.lambda_2.item() for m in masks]
            record.setdefault("lambda_at_step_start", []).extend([lambdas] * times)
            record.setdefault("hidden_loga_at_step_start", []).extend([torch.cat([m.hidden for m in masks]).tolist()] * times)


def train(rank: int, tag: str, folder: Path = FOLDER) -> dict[str, Tensor]:
    return Run(tag, rank, folder).train()


def assert_course(found: list[dict[str, Tensor]], arrays: Arrays, near: Near) -> None:
    """Compare what each worker's `train` returned with everything that the reference recorded of the run."""
    by_worker = {name: torch.stack([one[name] for one in found]) for name in ("loss", "soft_i2t_t2i", "affinity")}
    near(by_worker["loss"], arrays, "loss", LOSS)
    near(by_worker["soft_i2t_t2i"], arrays, "soft_i2t_t2i", LOSS)
    torch.testing.assert_close(by_worker["affinity"], by_worker["soft_i2t_t2i"].mean(-1), rtol=1e-6, atol=0)
    tolerances = {"step": 0.0, "lr": EXACT, "grad_norm": WEIGHTS}
    tolerances |= {f"{model}_logit_scale_at_step_start": EXACT for model in ("student", "teacher")}
    tolerances |= dict.fromkeys((name for name in found[0] if "loga" in name or "lambda" in name), WEIGHTS)
    recorded = [name for name in arrays.names() if name.startswith("final/")]
    if not recorded and len(found) == 1:  # weights are recorded of runs of one worker
        recorded = ["final/logit_scale"]
    for name, tolerance in (tolerances | dict.fromkeys(recorded, WEIGHTS)).items():
        near(found[0][name], arrays, name, tolerance, flat="_loga_final_" in name)
