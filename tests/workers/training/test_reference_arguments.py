"""Runs recorded with other flags, and runs of which not every array was recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.workers.parity import OWN_FOLDER, Arrays, Near, assert_near, document
from tests.workers.reference_arguments import ReferenceArguments
from tests.workers.trajectory import MAX_LOG_SCALE, assert_course, train

MANUAL = ["--steps", "4", "--batch-size", "8", "--lr", "0.002", "--warmup", "2", "--alpha", "0.8"]
AUTO = [
    "--steps", "4", "--batch-size", "8", "--lr", "0.002",
    "--prune-step", "3", "--sparsity-warmup", "1", "--target-sparsity", "0.5",
]  # fmt: skip
LEFT_OUT = ("grad_norm", "teacher_logit_scale_at_step_start", "lambda_at_step_start", "text_loga_final_heads")


class Recorded:
    """A fixture folder of runs with flags of our choice; their inputs are those of the reference's runs."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder, self.document = folder, document("traj.json", OWN_FOLDER)
        self.document["runs"] = {}
        with np.load(OWN_FOLDER / "traj.npz") as arrays:
            self._shared = {name: arrays[name] for name in arrays.files if "/" not in name or name.startswith("teacher/")}
            masks = [name for name in arrays.files if name.startswith("auto_w1/") and ("_loga_init_" in name or "_u_" in name)]
            self._masks = {name.removeprefix("auto_w1/"): arrays[name] for name in masks}

    def run(self, *line: str) -> dict[str, Tensor]:
        self.write(line, {})
        return train(0, "run", self.folder)

    def write(self, line: tuple[str, ...], found: dict[str, Tensor]) -> None:
        """Store arrays as those of a run with this command line."""
        self.document["runs"] = {"run": {"world_size": 1, "args": [*line]}}
        (self.folder / "traj.json").write_text(json.dumps(self.document))
        of_run = {f"run/{name}": array for name, array in {**self._masks, **found}.items()}
        np.savez(self.folder / "traj.npz", **self._shared, **of_run)


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def column(found: dict[str, Tensor], name: str) -> list[float]:
    return found[name].double().tolist()


class TestTemperature:
    def test_a_fixed_one_is_set_after_the_first_step(self, recorded: Recorded) -> None:
        found = recorded.run(*MANUAL, "--logit-scale", "40")

        for model in ("student", "teacher"):
            scales = column(found, f"{model}_logit_scale_at_step_start")
            assert scales[1:] == pytest.approx([np.log(40)] * 3)
            assert scales[0] != pytest.approx(np.log(40))

    def test_zero_is_a_learned_one_and_the_teachers_own(self, recorded: Recorded) -> None:
        found = recorded.run(*MANUAL, "--logit-scale", "0")

        own = Arrays("traj.npz", "teacher/", OWN_FOLDER)["logit_scale"].item()
        assert column(found, "teacher_logit_scale_at_step_start") == pytest.approx([own] * 4)
        scales = column(found, "student_logit_scale_at_step_start")
        assert scales[0] == pytest.approx(np.log(1 / 0.07))
        # AdamW's first step is the learning rate, in the direction of the gradient's sign.
        assert abs(scales[1] - scales[0]) == pytest.approx(column(found, "lr")[0], rel=1e-3)
        assert len(set(scales)) == 4

    def test_a_learned_one_stays_below_a_hundred(self, recorded: Recorded) -> None:
        found = recorded.run(*MANUAL, "--logit-scale", "0", "--lr", "10")

        assert max(column(found, "student_logit_scale_at_step_start")) <= MAX_LOG_SCALE + 1e-6


class TestClipping:
    def test_zero_does_not_clip(self, recorded: Recorded) -> None:
        unclipped, high, low = (recorded.run(*MANUAL, "--clip", clip) for clip in ("0", "1e9", "0.01"))

        assert column(unclipped, "loss") == column(high, "loss")
        assert column(unclipped, "grad_norm")[0] == column(low, "grad_norm")[0]
        assert column(unclipped, "grad_norm")[0] > 1
        assert not torch.equal(unclipped["final/visual.proj"], low["final/visual.proj"])

    def test_the_published_name_means_the_same(self) -> None:
        lines = ["--clip", "2"], ["--norm_gradient_clip", "2"]

        assert [ReferenceArguments([*MANUAL, *line]).clip_norm for line in lines] == [2.0, 2.0]


class TestSearch:
    def test_the_multipliers_have_a_learning_rate_of_their_own(self, recorded: Recorded) -> None:
        usual, fast, down = (recorded.run(*AUTO, "--prune", *line) for line in ([], ["--l0lr", "-0.06"], ["--l0lr", "0.02"]))

        rises = [one["lambda_at_step_start"][3, 0] - 10 for one in (usual, fast, down)]
        assert rises[0] > 1e-3
        assert rises[1] > 2 * rises[0]
        assert rises[2] < -1e-3
        assert not torch.equal(usual["image_loga_final_heads"], fast["image_loga_final_heads"])

    def test_without_the_total_loss_flag_each_tower_has_its_constraint(self, recorded: Recorded) -> None:
        together, apart = ([*AUTO, "--prune-image", "--prune-text", *line] for line in (["--total-loss-flag"], []))

        losses = [column(recorded.run(*line), "loss") for line in (together, apart)]

        assert losses[0] == column(recorded.run(*AUTO, "--prune"), "loss")
        assert losses[0] != losses[1]

    def test_one_tower_alone_is_searched_and_never_folded(self, recorded: Recorded) -> None:
        """As in the reference (METHOD F11)."""
        found = recorded.run(*AUTO, "--prune-image")

        assert ReferenceArguments([*AUTO, "--prune-image"]).prune_step is None
        assert found["lambda_at_step_start"].shape == (4, 2)
        assert torch.equal(found["image_loga_final_hidden"], found["hidden_loga_at_step_start"][3])
        assert found["final/visual.proj"].shape[0] == 32


class TestOptimizer:
    def test_every_setting_is_read(self) -> None:
        line = ["--wd", "0.1", "--beta1", "0.8", "--beta2", "0.95", "--eps", "1e-7", "--distillation-alpha", "0.5"]

        arguments = ReferenceArguments([*MANUAL, *line, "--distillation-weight", "3"])

        spec = arguments.optimizer
        assert (spec.weight_decay, spec.betas, spec.eps, spec.warmup_steps) == (0.1, (0.8, 0.95), 1e-7, 2)
        assert arguments.objective == {"affinity": 1.5, "contrastive": 1.5}

    def test_the_defaults_are_those_of_the_reference(self) -> None:
        arguments = ReferenceArguments(["--steps", "4", "--batch-size", "8"])

        spec = arguments.optimizer
        assert (spec.lr, spec.weight_decay, spec.betas, spec.eps) == (5e-4, 0.2, (0.9, 0.98), 1e-6)
        assert (arguments.clip_norm, arguments.log_scale, arguments.lambda_lr) == (np.inf, pytest.approx(np.log(50)), -0.02)
        assert (arguments.towers, arguments.prune_step, arguments.objective) == ((), None, {"affinity": 1.0, "contrastive": 0.0})

    def test_a_skipped_scheduler_leaves_the_rate(self, recorded: Recorded) -> None:
        assert column(recorded.run(*MANUAL, "--skip-scheduler"), "lr") == pytest.approx([0.002] * 4)

    def test_quick_gelu_is_another_activation(self, recorded: Recorded) -> None:
        losses = [column(recorded.run(*MANUAL, *line), "loss") for line in ([], ["--force-quick-gelu"])]

        assert losses[0] != losses[1]

    def test_what_changes_no_number_is_ignored(self) -> None:
        line = ["--local-loss", "--gather-with-grad", "--seed", "3", "--threads", "1", "--quiet", "--precision", "fp32"]

        assert vars(ReferenceArguments([*MANUAL, *line])) == vars(ReferenceArguments(MANUAL))

    @pytest.mark.parametrize("line", [["--lock-image"], ["--resume", "a.pt"], ["--precision", "amp"], ["--lr", "fast"]])
    def test_any_other_flag_is_an_error_that_names_it(self, line: list[str]) -> None:
        with pytest.raises(ValueError, match=rf"{line[0]}.*reference_arguments"):
            ReferenceArguments([*MANUAL, *line])


def near_or(skipped: list[str]) -> Near:
    """Compare as the `near` fixture does, and list what it would skip."""

    def compare(ours: Tensor | float, arrays: Arrays, name: str, tolerance: float, *, flat: bool = False) -> None:
        if name in arrays:
            assert_near(ours, arrays[name].flatten() if flat else arrays[name], tolerance, name)
        else:
            skipped.append(name)

    return compare


class TestArrays:
    @pytest.mark.parametrize("line", [[*MANUAL, "--logit-scale", "0"], [*AUTO, "--prune"]], ids=["manual", "auto"])
    def test_a_run_that_did_not_record_all_is_compared_in_the_rest(self, recorded: Recorded, line: list[str]) -> None:
        found, skipped = recorded.run(*line), list[str]()
        kept = {name: array for name, array in found.items() if not name.startswith(("final/", *LEFT_OUT))}
        kept |= {name: kept[name][None] for name in ("loss", "soft_i2t_t2i")}
        recorded.write(tuple(line), kept)

        assert_course([train(0, "run", recorded.folder)], Arrays("traj.npz", "run/", recorded.folder), near_or(skipped))

        assert {*skipped} == {name for name in LEFT_OUT if name in found} | {"final/logit_scale"}
        recorded.write(tuple(line), kept | {"lr": kept["lr"] + 1e-4})
        with pytest.raises(AssertionError, match="lr: differs by"):
            assert_course([found], Arrays("traj.npz", "run/", recorded.folder), near_or([]))

    def test_a_test_whose_input_was_not_recorded_is_skipped_with_the_name(self) -> None:
        with pytest.raises(pytest.skip.Exception, match=r"traj\.npz has no manual/grad_norms: it was not recorded"):
            Arrays("traj.npz", "manual/", OWN_FOLDER)["grad_norms"]
