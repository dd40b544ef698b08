"""Agreement with the teacher during training: how it is measured, when, and when it warns."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tinyclip.schemas.spec import DataSpec, ImageAugmentation
from tinyclip_workers.data.samples import is_held_out
from tinyclip_workers.data.shards import read_shards
from tinyclip_workers.data.stream.inputs import TeacherInputs, TextInput
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD, normalize
from tinyclip_workers.runtime.events import EventWriter
from tinyclip_workers.training.learner import StageLearner
from tinyclip_workers.training.observation import agreement
from tinyclip_workers.training.observation.agreement import FixedPairs, TeacherAgreement, read_pairs
from tinyclip_workers.training.observation.watch import AgreementWatch
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.training.teachers.frozen import FrozenTeacher
from tinyclip_workers.training.teachers.inputs import AS_STUDENT, InputPreparation

from tests.workers.attempts import Job, no_cluster, specs_in
from tests.workers.auto_stages import RESNET, TEACHER, TEXT, all_tensors, auto, batches_of, equal, spec_of, trainer_of
from tests.workers.processes import on_workers
from tests.workers.shapes_data import write_shards

SAME = {"text": {}}
RESNET_STAGE = {
    "name": "resnet", "inherit": "none", "student": {"embed_dim": 16, "image": RESNET, "text": TEXT}, "train": {"steps": 20},
}  # fmt: skip
CPU = torch.device("cpu")


def letters(text: str) -> torch.Tensor:
    return torch.tensor([ord(c) for c in f"{text:<12}"[:12]])


def data(shards: str, holdout: float = 0.0) -> DataSpec:
    return DataSpec.model_validate({"train": {"shards": shards, "caption_key": "json.captions", "holdout": holdout}})


def random_pairs(count: int) -> FixedPairs:
    draws = torch.Generator().manual_seed(5)
    images_NCHW = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
    return FixedPairs([images_NCHW], [torch.randint(1, 40_000, (count, 12), generator=draws)], held_out=True)


def agreement_of(pairs: FixedPairs, *teachers: FrozenTeacher) -> TeacherAgreement:
    prepare = InputPreparation((OPENAI_MEAN, OPENAI_STD), [AS_STUDENT for _ in teachers], ImageAugmentation(), CPU)
    return TeacherAgreement(pairs, teachers, prepare, trims=True)


def random_model(seed: int) -> Any:
    torch.manual_seed(seed)
    return build_model(TEACHER)


class TestPairs:
    def test_they_are_the_first_held_out_ones_with_their_first_captions(self, tmp_path: Path) -> None:
        shards = write_shards(tmp_path)
        samples = list(read_shards(sorted(map(str, tmp_path.glob("*.tar"))), cast(Any, None)))

        pairs = read_pairs(data(shards, holdout=0.25), 24, TextInput(letters), TeacherInputs())

        held_out = [sample for sample in samples if is_held_out(sample["__key__"], 0.25)]
        assert pairs is not None
        assert pairs.held_out
        assert pairs.images[0].shape == (len(held_out), 3, 24, 24)
        assert torch.equal(pairs.tokens[0], torch.stack([letters(sample["txt"].decode()) for sample in held_out]))

    def test_without_a_holdout_they_are_the_first_ones_of_the_shards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agreement, "MAX_PAIRS", 10)

        pairs = read_pairs(data(write_shards(tmp_path)), 32, TextInput(letters), TeacherInputs())

        assert pairs is not None
        assert (len(pairs.tokens[0]), pairs.held_out) == (10, False)
        assert torch.equal(pairs.tokens[0][0], letters("a red square"))

    def test_with_a_holdout_of_less_than_two_pairs_there_are_none(self, tmp_path: Path) -> None:
        assert read_pairs(data(write_shards(tmp_path), holdout=1e-9), 32, TextInput(letters), TeacherInputs()) is None


class TestDivergence:
    def test_of_the_teacher_itself_it_is_0_and_its_mode_is_kept(self) -> None:
        model = random_model(1)
        model.train()

        found = agreement_of(random_pairs(70), FrozenTeacher(model, None))
        model.train()

        assert found.kl(model) == pytest.approx(0.0, abs=1e-6)
        assert model.training

    def test_it_is_the_mean_kl_of_both_directions_within_batches_of_64_rows(self) -> None:
        pairs, teacher, student = random_pairs(70), random_model(1), random_model(2)

        found = agreement_of(pairs, FrozenTeacher(teacher, 20.0)).kl(student)

        total = 0.0
        for rows in (slice(0, 64), slice(64, 70)):
            wanted_BB = 20.0 * similarities(teacher, pairs, rows)
            own_BB = student.logit_scale.exp().item() * similarities(student, pairs, rows)
            total += (kl_sum(wanted_BB, own_BB) + kl_sum(wanted_BB.T, own_BB.T)) / 2
        assert found == pytest.approx(total / 70, rel=1e-5)

    def test_several_teachers_count_by_their_weights(self) -> None:
        pairs, teachers, student = random_pairs(9), [random_model(1), random_model(3)], random_model(2)
        frozen = [FrozenTeacher(model, 20.0, weight=weight) for model, weight in zip(teachers, (0.75, 0.25), strict=True)]

        found = agreement_of(pairs, *frozen).kl(student)

        whole, own_BB = slice(0, 9), student.logit_scale.exp().item() * similarities(student, pairs, slice(0, 9))
        total = 0.0
        for transposed in (False, True):
            logits = [20.0 * similarities(model, pairs, whole) for model in teachers]
            a_BB, b_BB = ((x.T if transposed else x).softmax(1) for x in logits)
            total += kl_sum((0.75 * a_BB + 0.25 * b_BB).log(), own_BB.T if transposed else own_BB)
        assert found == pytest.approx(total / 2 / 9, rel=1e-5)


@torch.no_grad()
def similarities(model: Any, pairs: FixedPairs, rows: slice) -> torch.Tensor:
    unit = torch.nn.functional.normalize
    images = unit(model.eval().encode_image(normalize(pairs.images[0][rows], OPENAI_MEAN, OPENAI_STD)), dim=-1)
    return images @ unit(model.encode_text(pairs.tokens[0][rows]), dim=-1).T


def kl_sum(wanted_BB: torch.Tensor, own_BB: torch.Tensor) -> float:
    wanted_BB, own_BB = wanted_BB.log_softmax(1), own_BB.log_softmax(1)
    return float((wanted_BB.exp() * (wanted_BB - own_BB)).sum())


class Sent:
    """Collects events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any], str]] = []

    def send(self, type: str, *, stage: int, data: dict[str, Any], message: str) -> None:
        self.events.append((type, data, message))

    def steps(self, type: str) -> list[int]:
        return [data["step"] for found, data, _ in self.events if found == type]


def watch_of(values: Sequence[float], sent: Sent, **changes: Any) -> tuple[AgreementWatch, StageLearner]:
    """Return a watch of a stage of 40 steps that measures these values, and the learner of its student."""
    spec = spec_of("not read", {"name": "half", "student": SAME, "train": {"steps": 40}}, **changes)
    stage, model, measured = resolve_stage(spec, 0, TEACHER, None, 96), build_model(TEACHER), iter(values)
    watch = AgreementWatch(spec, stage, cast(Any, None), [], CPU, cast(EventWriter, sent))
    watch.__dict__["_agreement"] = SimpleNamespace(kl=lambda _: next(measured), pairs=random_pairs(2))
    return watch, StageLearner(model, stage, None, CPU)


class TestWatch:
    def test_it_measures_at_the_start_at_ten_even_intervals_and_at_the_end(self) -> None:
        sent = Sent()
        watch, learner = watch_of([0.5] * 11, sent)

        watch.begin(learner, 0)
        for step in range(1, 41):
            watch.after_step(learner, step)
        watch.end(learner)

        assert sent.steps("agreement.measured") == list(range(0, 41, 4))
        assert sent.events[0][1] == {"step": 0, "kl": 0.5, "start_kl": 0.5, "pairs": 2, "held_out": True}

    def test_it_measures_where_tasks_are_evaluated(self) -> None:
        sent = Sent()
        watch, learner = watch_of([0.5] * 3, sent, evaluation={"every_steps": 15})

        for step in range(1, 41):
            watch.after_step(learner, step)

        assert sent.steps("agreement.measured") == [15, 30]

    def test_it_warns_once_until_the_student_has_recovered(self) -> None:
        sent = Sent()
        watch, learner = watch_of([0.5, 0.53, 0.56, 0.9, 0.5, float("nan"), 0.7], sent)

        watch.begin(learner, 0)
        for step in range(4, 28, 4):
            watch.after_step(learner, step)

        assert sent.steps("agreement.worse") == [8, 20]
        assert sent.events[3][2] == (
            "stage half agrees less with its teacher than at its start: KL 0.5600 at step 8, 0.5000 at the start; "
            "lower optimizer.lr (now 0.001) or lengthen optimizer.warmup_steps (now 0)"
        )

    def test_a_resumed_stage_compares_with_its_start_and_does_not_warn_again(self) -> None:
        sent = Sent()
        watch, learner = watch_of([0.5, 0.9], sent)
        watch.begin(learner, 0)
        watch.after_step(learner, 4)
        resumed, learner = watch_of([0.9], sent)

        resumed.restore(watch.state())
        resumed.after_step(learner, 8)

        assert sent.steps("agreement.worse") == [4]
        assert sent.events[-1][1]["start_kl"] == 0.5

    def test_an_objective_without_a_teacher_is_measured_and_does_not_warn(self) -> None:
        sent = Sent()
        watch, learner = watch_of([0.5, 0.9], sent, objective={"contrastive": 1})

        watch.begin(learner, 0)
        watch.end(learner)

        assert [type for type, _, _ in sent.events] == ["agreement.measured"] * 2


def train_on(rank: int, shards: str, watched: bool) -> dict[str, torch.Tensor]:
    """Train a ResNet, whose batch norm is synchronised, for three steps; worker 0 measures after each one."""
    trainer = trainer_of(spec_of(shards, RESNET_STAGE))
    measured = agreement_of(random_pairs(8), FrozenTeacher(random_model(1), 20.0))
    batches = batches_of(trainer)
    for _ in range(3):
        trainer.train_step(next(batches))
        if watched and rank == 0:
            measured.kl(trainer.student)
    return all_tensors(trainer)


def test_worker_0_measures_without_the_others_and_changes_nothing(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)

    watched, plain = on_workers(2, train_on, shards, True), on_workers(2, train_on, shards, False)

    assert all(equal(one, other) for one, other in zip(watched, plain, strict=True))


class TestJob:
    @pytest.fixture(autouse=True)
    def patch(self) -> Iterator[pytest.MonkeyPatch]:
        with no_cluster() as patch:
            yield patch

    def test_it_changes_nothing_in_training(self, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        stage = {"name": "same", "student": SAME, "select": "leading", "train": {"steps": 20}}
        spec = specs_in(tmp_path / "inputs")
        with_it, without = Job(tmp_path / "with", spec(stage)), Job(tmp_path / "without", spec(stage))

        assert with_it.attempt()
        patch.setattr(AgreementWatch, "kl", lambda watch, model: None)
        assert without.attempt()

        measured = with_it.events("agreement.measured")
        assert [event["data"]["step"] for event in measured] == [0, 10, 20]
        assert measured[0]["data"]["kl"] < 1e-5 < measured[-1]["data"]["kl"]
        assert without.events("agreement.measured") == []
        assert all(torch.equal(tensor, without.weights()[name]) for name, tensor in with_it.weights().items())

    def test_after_its_cut_an_automatic_stage_starts_again(self, tmp_path: Path) -> None:
        stage = {**auto(0.4, prune_step=12), "train": {"steps": 14}}
        job = Job(tmp_path / "store", specs_in(tmp_path / "inputs")(stage))

        assert job.attempt()

        found = [event["data"] for event in job.events("agreement.measured")]
        assert [event["step"] for event in found] == [0, 10, 12, 14]
        assert found[0]["start_kl"] == found[1]["start_kl"] == found[0]["kl"] < found[2]["kl"]
        assert found[2]["kl"] == found[2]["start_kl"] == found[3]["start_kl"]
