"""Training from stored embeddings: the same losses as with live teachers, and refusals of what does not belong to a job."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tinyclip.artifacts.documents import StoredTeacher
from tinyclip.artifacts.paths import job_spec, reinforcement_document, reinforcement_images
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas import JobSpec
from tinyclip.schemas.datasets import DatasetVersion
from tinyclip_workers.data.errors import DataError, Skipped
from tinyclip_workers.data.index.dataset_index import DatasetIndex, open_index
from tinyclip_workers.data.reinforcement.check import check_reinforcement
from tinyclip_workers.data.reinforcement.stored import StoredReinforcement
from tinyclip_workers.data.reinforcement.tensor_files import NewTensorFile, PageCache, TensorFile
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.inputs import SingleTextTokenizer
from tinyclip_workers.data.stream.loader import BatchLoader
from tinyclip_workers.data.stream.pairs import PairStream
from tinyclip_workers.data.stream.positions import DataPosition
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import LoadedModel, load_folder
from tinyclip_workers.model.tokenizers import make_tokenizer
from tinyclip_workers.training.clusters import save_clusters
from tinyclip_workers.training.objective.losses import SigmoidScale
from tinyclip_workers.training.objective.terms import TERMS
from tinyclip_workers.training.stage import resolve_stage
from tinyclip_workers.training.teachers.frozen import describe_teacher, freeze_teachers
from tinyclip_workers.training.teachers.stored import StoredTargets, verify_stored
from tinyclip_workers.training.trainer import StageTrainer

from tests.workers.attempts import Job, no_cluster
from tests.workers.auto_stages import hooks
from tests.workers.registered import DATASET, ID, register, reinforce_here, request_reinforcement
from tests.workers.shapes_data import write_shards
from tests.workers.students import write_student

CPU = torch.device("cpu")
STEPS, BATCH = 20, 16
AUGMENT = {"crop_scale": [0.5, 1.0], "degrees": 10, "color_jitter": 0.2, "horizontal_flip": 0.5}
SHARES = [0.75, 0.25]
TOLERANCES = {"fp32": 1e-5, "bf16": 1e-2}
"""Relative differences of losses."""


@dataclass
class World:
    """A data set with reinforcements by two teachers of different preprocessing, one for each type."""

    folder: Path
    version: DatasetVersion
    store: ArtifactsStore
    index: DatasetIndex
    teachers: list[LoadedModel]
    stored: dict[str, StoredReinforcement]

    def spec(self, objective: dict[str, Any], **changes: Any) -> JobSpec:
        """Return a spec as workers have it."""
        return self.version.resolve(self.written_spec(objective, **changes))

    def written_spec(self, objective: dict[str, Any], **changes: Any) -> JobSpec:
        teachers = [{"model": f"local-dir:{self.folder}/{name}", "weight": weight} for name, weight in (("one", 3), ("two", 1))]
        student = {"embed_dim": 24, "image": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}}
        text = {"layers": 1, "width": 32, "heads": 2, "context_length": 20, "vocab_size": 49408}
        document = {
            "name": "shapes", "teachers": teachers, "objective": objective, "batch_size": BATCH, "precision": "fp32",
            "data": {"train": {"dataset": f"{DATASET}@1", "reinforcement": ID, "augment": AUGMENT}},
            "stages": [{"name": "only", "inherit": "none", "student": {**student, "text": text}, "train": {"steps": STEPS}}],
            "optimizer": {"lr": 1e-3, "warmup_steps": 2}, **changes,
        }  # fmt: skip
        return JobSpec.model_validate(document)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("stored")
    for seed, (name, size) in enumerate((("one", 32), ("two", 48))):
        scatter(write_student(folder / name, seed=seed, image_size=size))
    shards = write_shards(folder / "data", shards=2, pairs=40, size=48)
    stored = {}
    for dtype in TOLERANCES:
        store = ArtifactsStore(str(folder / dtype))
        version = register(store, shards, caption_key="json.captions", image_key=["png"])
        teachers = [{"model": f"local-dir:{folder}/one", "weight": 3}, {"model": f"local-dir:{folder}/two", "weight": 1}]
        request = request_reinforcement(store, teachers=teachers, augmentations=3, augment=AUGMENT, dtype=dtype)
        reinforce_here(store, request)
        stored[dtype] = StoredReinforcement.open(store, request)
    index = open_index(store, f"datasets/{DATASET}/1", version.digest)
    return World(folder, version, store, index, [load_folder(str(folder / name)) for name in ("one", "two")], stored)


def scatter(folder: Path) -> None:
    """Enlarge the weights of a random teacher, so that its embeddings of different images differ."""
    path = folder / "open_clip_model.safetensors"
    state = load_file(path)
    save_file({name: 4 * x if "in_proj" in name or "c_fc" in name else x for name, x in state.items()}, path)


def trainer_of(world: World, spec: JobSpec, stored: StoredReinforcement | None) -> StageTrainer:
    torch.manual_seed(5)
    stage = resolve_stage(spec, 0, world.teachers[0].layout, None, world.index.pairs)
    affine = stage.objective.affinity > 0
    teachers = freeze_teachers(world.teachers, SHARES, None, world.teachers[0])[: 2 if affine else 1]
    targets = stored and StoredTargets(stored.document.teachers[: 2 if affine else 1], None, CPU)
    colors = {"mean": world.teachers[0].image_mean, "std": world.teachers[0].image_std}
    return StageTrainer(spec, stage, build_model(stage.layout), teachers, CPU, **colors, stored=targets)


def batches_of(
    world: World, spec: JobSpec, stored: StoredReinforcement, processes: int = 0, trainer: StageTrainer | None = None
) -> Iterator[Batch]:
    inputs = trainer.prepare.teacher_inputs if trainer is not None else None
    tokenize = SingleTextTokenizer(make_tokenizer(world.teachers[0].layout))
    stream = PairStream(
        spec.data, world.index, batch_size=BATCH, image_size=32, tokenize=tokenize, seed=spec.seed, stored=stored,
        teacher_inputs=inputs,
    )  # fmt: skip
    return iter(BatchLoader(stream, processes))


def losses_of(world: World, spec: JobSpec, dtype: str, *, live: bool) -> list[float]:
    """Train on the stored views, with live teachers or from the stored embeddings."""
    losses: list[float] = []
    trainer = trainer_of(world, spec, None if live else world.stored[dtype])
    batches = batches_of(world, spec, world.stored[dtype], trainer=trainer)
    trainer.run(batches, hooks(progress=lambda result: losses.append(result.loss)))
    assert len(losses) == STEPS
    return losses


OTHERS = ("contrastive", "sigmoid_contrastive", "sigmoid_affinity")
"""Terms without a teacher, and the one for teachers with a bias (`TestSigmoidTeachers`)."""
ROUNDED = ("affinity", "cluster_instance")
"""Terms whose losses from bf16 embeddings are compared in each run: one of both teachers, and one that may change by steps."""


class TestSigmoidTeachers:
    @pytest.mark.parametrize("bias", [None, -7.0])
    def test_scale_and_bias_are_stored_with_the_embeddings(self, bias: float | None) -> None:
        stored = StoredTeacher(
            name="t", sha256="", scale=20.0, bias=bias, embed_dim=4, image_size=8, image_mean=(0, 0, 0), image_std=(1, 1, 1)
        )
        whole = torch.ones(2, dtype=torch.bool)
        batch = Batch(
            torch.zeros(2, 3, 8, 8), torch.zeros(2, 4), torch.zeros(2, 1), torch.arange(2), whole, DataPosition(), Skipped(),
            targets=[(torch.randn(2, 4), torch.randn(2, 4))],
        )  # fmt: skip

        [found] = StoredTargets([stored], 50.0, CPU).embeddings(batch)

        assert found.scale == 50
        assert found.sigmoid == (None if bias is None else SigmoidScale(20.0, bias))


class TestParity:
    @pytest.mark.parametrize(
        ("term", "dtype"),
        [
            pytest.param(term, dtype, marks=[pytest.mark.long] * (dtype == "bf16" and term not in ROUNDED))
            for term in TERMS if term not in OTHERS for dtype in TOLERANCES
        ],
    )  # fmt: skip
    def test_losses_are_those_of_live_teachers(self, world: World, term: str, dtype: str, tmp_path: Path) -> None:
        """`affinity` is that of both teachers."""
        objective: dict[str, Any] = {"affinity": 0, term: 1}
        if term == "cluster_instance":
            centroids_KE = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
            save_clusters(str(tmp_path / "clusters"), centroids_KE, {})
            objective["clusters"] = str(tmp_path / "clusters")
        spec = world.spec(objective)

        live, stored = (torch.tensor(losses_of(world, spec, dtype, live=each)) for each in (True, False))

        if (term, dtype) == ("cluster_instance", "bf16"):  # rounding moves an image to another cluster now and then
            assert ((stored - live).abs() < 1e-2 * live).float().mean() >= 0.9
            return
        torch.testing.assert_close(stored, live, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
        assert live.std() > 0

    def test_no_teacher_is_in_the_step(self, world: World) -> None:
        trainer = trainer_of(world, world.spec({"affinity": 1}), world.stored["bf16"])

        assert trainer.teachers == []

    def test_loader_processes_have_the_same_targets(self, world: World) -> None:
        spec = world.spec({"affinity": 1})
        one, two = (batches_of(world, spec, world.stored["bf16"], processes) for processes in (0, 2))

        for _ in range(7):
            a, b = next(one), next(two)
            assert a.targets is not None
            assert b.targets is not None
            for (image, text), (other_image, other_text) in zip(a.targets, b.targets, strict=True):
                assert torch.equal(image, other_image)
                assert torch.equal(text, other_text)
            assert torch.equal(a.views_BP, b.views_BP)


class TestRefusals:
    """Each error names what differs, the stored and the given value, and the remedy."""

    def check(self, world: World, spec: JobSpec, version: DatasetVersion | None = None, **teacher: Any) -> None:
        described = [describe_teacher(model, share) for model, share in zip(world.teachers, SHARES, strict=True)]
        described[0] = described[0].model_copy(update=teacher)
        check_reinforcement(world.stored["fp32"].document, spec, version or world.version, described, [20])

    def test_its_own_job_is_not_refused(self, world: World) -> None:
        self.check(world, world.spec({"affinity": 1}))

    @pytest.mark.parametrize(
        ("teacher", "message"),
        [
            ({"sha256": "0" * 64}, "the weights of teacher 0 (one) was"),
            ({"image_mean": (0.5, 0.5, 0.5)}, "the mean of colours of teacher 0 (one) was (0.5, 0.4, 0.3) when it was made"),
            ({"image_std": (0.5, 0.5, 0.5)}, "the deviation of colours of teacher 0"),
            ({"image_size": 64}, "the image size of teacher 0 (one) was 32 when it was made, this job has 64"),
        ],
    )
    def test_another_teacher(self, world: World, teacher: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError) as error:
            self.check(world, world.spec({"affinity": 1}), **teacher)

        assert message in str(error.value)
        assert "make a reinforcement for this job, or omit" in str(error.value)
        assert (error.value.field, error.value.value) == ("data.train.reinforcement", ID)

    def test_other_weights_of_the_teachers(self, world: World) -> None:
        spec = world.spec({"affinity": 1})
        spec.teachers[0].weight = 1.0

        with pytest.raises(DataError, match=r"the weight of teacher 0 was 0.75 .* job has 0.5; set the weights"):
            self.check(world, spec)

    def test_fewer_teachers(self, world: World) -> None:
        spec = world.spec({"affinity": 1})
        del spec.teachers[1]

        with pytest.raises(DataError, match="the number of teachers was 2"):
            self.check(world, spec)

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"digest": "1" * 64}, "the digest of the data set was"), ({"version": 2}, "the data set was shapes@1")],
    )
    def test_other_data(self, world: World, change: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            self.check(world, world.spec({"affinity": 1}), world.version.model_copy(update=change))

    def test_another_augmentation(self, world: World) -> None:
        data = {"train": {"dataset": f"{DATASET}@1", "reinforcement": ID, "augment": {**AUGMENT, "degrees": 3}}}

        with pytest.raises(DataError, match=r"augment.degrees was 10.0 when it was made, this job has 3.0; set it to the stored"):
            self.check(world, world.spec({"affinity": 1}, data=data))

    def test_a_shorter_context(self, world: World) -> None:
        with pytest.raises(DataError, match="the tokens of a text that a student reads was 20"):
            check_reinforcement(world.stored["fp32"].document, world.spec({"affinity": 1}), world.version, [], [16])

    def test_one_that_does_not_exist(self, world: World) -> None:
        with pytest.raises(DataError, match="is not complete, or was deleted"):
            StoredReinforcement.open(world.store, "datasets/shapes/1/reinforcements/reinf_0000000000000000")


class TestVerification:
    def verify(self, world: World, stored: StoredReinforcement) -> float:
        spec, student = world.spec({"affinity": 1}), world.teachers[0]
        teachers = freeze_teachers(world.teachers, SHARES, None, student)
        return verify_stored(stored, spec, world.index, student, teachers, CPU)

    def test_the_right_embeddings_pass(self, world: World) -> None:
        assert self.verify(world, world.stored["fp32"]) > 0.999999
        assert self.verify(world, world.stored["bf16"]) > 0.99999

    def test_embeddings_of_other_images_are_noticed(self, world: World, tmp_path: Path) -> None:
        stored = damaged(world, tmp_path, "image.1", lambda x: x[:, torch.arange(x.shape[1]).roll(1).numpy()])

        with pytest.raises(DataError, match="has other embeddings of images than two computes: the cosine is"):
            self.verify(world, stored)

    def test_numbers_that_are_not_finite_are_noticed(self, world: World, tmp_path: Path) -> None:
        stored = damaged(world, tmp_path, "image.0", lambda x: x * float("nan"))

        with pytest.raises(DataError, match="has other embeddings of images than one computes: the cosine is nan"):
            self.verify(world, stored)


def damaged(world: World, folder: Path, name: str, change: Callable[[Any], Any]) -> StoredReinforcement:
    """Return a copy of the fp32 reinforcement with another tensor in the files of images."""
    source, store = world.stored["fp32"], ArtifactsStore(str(folder))
    origin = ArtifactsStore(str(world.folder / "fp32"))
    for file in origin.find(""):
        store.write_bytes(file.path, origin.read_bytes(file.path))
    place = f"datasets/{DATASET}/1/reinforcements/{ID}"
    for shard in range(2):
        file = TensorFile.open(origin, reinforcement_images(place, shard), PageCache(origin))
        new = NewTensorFile(folder / "new", {each: (entry.dtype, tuple(entry.shape)) for each, entry in file.entries.items()})
        for each in file.entries:
            new[each][...] = change(file.whole(each)) if each == name else file.whole(each)
        new.save(store, reinforcement_images(place, shard))
    assert store.exists(reinforcement_document(place))
    assert source.document.dtype == "fp32"
    return StoredReinforcement.open(store, place)


class TestJob:
    @pytest.fixture(autouse=True)
    def without_a_cluster(self) -> Iterator[None]:
        with no_cluster():
            yield

    def job(self, world: World, folder: Path, **changes: Any) -> Job:
        """Make a job in a copy of the store with the data set."""
        store = ArtifactsStore(str(folder))
        for file in world.store.find(""):
            store.write_bytes(file.path, world.store.read_bytes(file.path))
        task = {"name": "find", "kind": "retrieval", "shards": world.version.source.shards, "image_key": ["png"]}
        job = Job(folder, world.written_spec({"affinity": 1, "feature_mimicry": 1}, evaluation={"tasks": [task]}, **changes))
        document = json.loads(store.read_bytes(job_spec("job_1")))
        document["dataset"] = world.version.model_dump(mode="json")
        store.write_bytes(job_spec("job_1"), json.dumps(document).encode())
        return job

    def test_a_job_trains_from_the_reinforcement(self, world: World, tmp_path: Path) -> None:
        job = self.job(world, tmp_path)

        assert job.attempt()

        messages = [event["message"] for event in job.events("log")]
        assert any("16 pairs were verified, the least cosine is" in message for message in messages)
        assert len(job.events("agreement.measured")) > 2
        [evaluation] = job.events("evaluation")
        assert evaluation["data"]["teacher"] is not None

    def test_a_teacher_that_has_changed_fails_the_job(self, world: World, tmp_path: Path) -> None:
        job = self.job(world, tmp_path / "store", teacher=None)
        spec = json.loads(job.store.read_bytes(job_spec("job_1")))
        other = write_student(tmp_path / "one", seed=9)
        spec["spec"]["teachers"][0]["model"] = f"local-dir:{other}"
        job.store.write_bytes(job_spec("job_1"), json.dumps(spec).encode())

        assert not job.attempt()

        [failed] = job.events("attempt.failed")
        assert failed["data"]["code"] == "unusable_data"
        assert "the weights of teacher 0" in failed["message"]
