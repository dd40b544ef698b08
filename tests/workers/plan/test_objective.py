"""Plans with objectives and several teachers: missing files and misfits are errors at their fields, with remedies."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import ValidationError
from safetensors.torch import save_file
from tinyclip.schemas import FieldError, JobSpec, Plan
from tinyclip_workers.model.summary import summarize
from tinyclip_workers.plan.specs import make_plan
from tinyclip_workers.training.clusters import ClustersError, read_clusters_header, save_clusters

from tests.workers.models import tiny_layout, tiny_model, write_folder
from tests.workers.plan_specs import Document, spec, write_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("plan"))


@pytest.fixture
def clusters(tmp_path: Path) -> str:
    uri = str(tmp_path / "clusters.safetensors")
    save_clusters(uri, torch.eye(16)[:5], {"teacher": "teacher"})
    return uri


def planned(document: Document) -> Plan | list[FieldError]:
    document = {**document, "evaluation": {}}
    return make_plan(JobSpec.model_validate(document))


def plan_of(document: Document) -> Plan:
    plan = planned(document)
    assert isinstance(plan, Plan), plan
    return plan


def error_of(document: Document) -> FieldError:
    errors = planned(document)
    assert not isinstance(errors, Plan)
    [error] = errors
    return error


class TestEmbeddingSizes:
    def test_they_may_be_as_large_as_the_embeddings(self, folder: Path) -> None:
        plan_of({**spec(folder), "objective": {"affinity": 1, "embedding_sizes": [4, 16]}})

    def test_larger_ones_are_an_error(self, folder: Path) -> None:
        error = error_of({**spec(folder), "objective": {"affinity": 1, "embedding_sizes": [4, 17]}})

        assert (error.pointer, error.value) == ("/objective/embedding_sizes/1", 17)
        assert "16 numbers" in error.message


class TestClusters:
    def test_a_file_of_the_right_size_is_accepted(self, folder: Path, clusters: str) -> None:
        plan = plan_of(spec(folder) | {"objective": {"cluster_instance": 1, "clusters": clusters}})

        assert plan.warnings == []
        assert plan.spec.objective.clusters == clusters

    def test_a_missing_field_is_an_error(self, folder: Path) -> None:
        error = error_of(spec(folder) | {"objective": {"cluster_instance": 1}})

        assert (error.pointer, error.value) == ("/objective/clusters", None)
        assert "python -m tinyclip_workers.training.clusters SPEC OUT" in error.message

    def test_a_stage_may_have_its_own_file(self, folder: Path) -> None:
        document = spec(folder)
        document["stages"][1]["objective"] = {"cluster_instance": 1, "clusters": "/nowhere/c.safetensors"}

        error = error_of(document)

        assert (error.pointer, error.value) == ("/stages/1/objective/clusters", "/nowhere/c.safetensors")
        assert "there is no file /nowhere/c.safetensors; make it with" in error.message

    @pytest.mark.parametrize("data", [b"", b"not a file of tensors at all", None], ids=["empty", "text", "truncated"])
    def test_an_unreadable_file_is_an_error(self, folder: Path, clusters: str, data: bytes | None) -> None:
        Path(clusters).write_bytes(Path(clusters).read_bytes()[:-8] if data is None else data)

        error = error_of(spec(folder) | {"objective": {"cluster_instance": 1, "clusters": clusters}})

        assert (error.pointer, error.value) == ("/objective/clusters", clusters)
        assert "make it with" in error.message

    def test_an_unsupported_address_is_an_error(self, folder: Path) -> None:
        error = error_of(spec(folder) | {"objective": {"cluster_instance": 1, "clusters": "nowhere://c"}})

        assert (error.pointer, error.value) == ("/objective/clusters", "nowhere://c")

    def test_a_store_whose_driver_fails_is_an_error(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: Any, **options: Any) -> bool:
            raise RuntimeError("Could not connect to the endpoint")  # botocore's errors are no OSError either

        monkeypatch.setattr(MemoryFileSystem, "exists", fail)

        error = error_of(spec(folder) | {"objective": {"cluster_instance": 1, "clusters": "memory://clusters"}})

        assert (error.pointer, error.value) == ("/objective/clusters", "memory://clusters")
        assert "Could not connect" in error.message

    def test_weights_are_not_accepted_as_clusters(self, folder: Path) -> None:
        weights = str(folder / "teacher" / "open_clip_model.safetensors")

        assert "has no table of centroids but" in error_of(
            spec(folder) | {"objective": {"cluster_instance": 1, "clusters": weights}}
        ).message

    def test_errors_show_a_few_tensors_of_a_file_with_many(self, folder: Path, tmp_path: Path) -> None:
        file = tmp_path / "many.safetensors"
        save_file({f"{index}{'n' * 500}": torch.zeros(1) for index in range(100)}, file)

        with pytest.raises(ClustersError, match=r"n…, …; make it with") as error:
            read_clusters_header(str(file))

        assert len(str(error.value)) < 1500

    def test_another_embedding_size_is_refused(self, folder: Path, clusters: str) -> None:
        save_clusters(clusters, torch.eye(24)[:5], {})

        error = error_of(spec(folder) | {"objective": {"cluster_instance": 1, "clusters": clusters}})

        assert (error.pointer, error.value) == ("/objective/clusters", clusters)
        assert "embeddings of 24, the teacher's have 16" in error.message

    def test_another_teacher_and_an_unused_file_are_warnings(self, folder: Path, clusters: str) -> None:
        save_clusters(clusters, torch.eye(16)[:5], {"teacher": "ViT-L-14@openai"})

        other = plan_of(spec(folder) | {"objective": {"cluster_instance": 1, "clusters": clusters}})
        unused = plan_of(spec(folder) | {"objective": {"affinity": 1, "clusters": clusters}})

        assert "made with the teacher ViT-L-14@openai, the spec has teacher" in other.warnings[0]
        assert "cluster_instance has weight 0" in unused.warnings[0]


class TestTerms:
    def test_a_term_costs_a_forward_pass_of_its_teacher(self, folder: Path) -> None:
        hours = {
            term: plan_of(spec(folder) | {"objective": {term: 1}}).stages[1].device_hours
            for term in ("affinity", "feature_mimicry", "contrastive")
        }

        assert hours["affinity"] == hours["feature_mimicry"] > hours["contrastive"]

    @pytest.mark.parametrize("term", ["affinity", "feature_mimicry", "inheritance", "exploration", "interactive_contrastive",
                                      "vertical_relational", "cross_relational", "cluster_instance"])  # fmt: skip
    def test_a_term_without_a_teacher_is_refused(self, folder: Path, term: str) -> None:
        document = spec(folder) | {"teacher": None, "objective": {term: 1}}

        with pytest.raises(ValidationError, match=rf"{term}.* but the spec has no teacher; add teacher"):
            JobSpec.model_validate(document)

    def test_a_given_term_replaces_the_default_terms(self, folder: Path) -> None:
        weights = JobSpec.model_validate(spec(folder) | {"objective": {"feature_mimicry": 2000}}).objective.weights()

        assert {name: weight for name, weight in weights.items() if weight} == {"feature_mimicry": 2000}


class TestSeveralTeachers:
    def document(self, folder: Path, tmp_path: Path, **text: Any) -> Document:
        layout = tiny_layout()
        image = layout.image.model_copy(update={"image_size": 64})
        other = layout.model_copy(update={"image": image, "embed_dim": 24, "text": layout.text.model_copy(update=text)})
        write_folder(tmp_path / "large", tiny_model(1, other), other)
        teachers = [{"model": f"local-dir:{folder}/teacher"}, {"model": f"local-dir:{tmp_path}/large", "weight": 0.5}]
        return {key: value for key, value in spec(folder).items() if key != "teacher"} | {"teachers": teachers}

    def test_sizes_may_differ_and_every_teacher_costs(self, folder: Path, tmp_path: Path) -> None:
        alone, both = plan_of(spec(folder)), plan_of(self.document(folder, tmp_path))

        assert both.teacher == alone.teacher == summarize(tiny_layout())
        assert both.stages[0].student == alone.stages[0].student
        assert both.device_hours > alone.device_hours
        assert both.warnings == []
        assert plan_of(both.spec.model_dump(mode="json")).spec == both.spec

    def test_a_teacher_may_read_shorter_texts(self, folder: Path, tmp_path: Path) -> None:
        assert plan_of(self.document(folder, tmp_path, context_length=12)).warnings == []

    def test_a_teacher_of_other_tokens_needs_its_tokenizer(self, folder: Path, tmp_path: Path) -> None:
        error = error_of(self.document(folder, tmp_path, vocab_size=300))

        assert error.pointer == "/teachers/1/model"
        assert "has 300 token embeddings and no tokenizer of its own" in error.message

    def test_a_missing_teacher_is_an_error_at_its_index(self, folder: Path, tmp_path: Path) -> None:
        document = self.document(folder, tmp_path)
        document["teachers"][1]["model"] = "local-dir:/nowhere"

        error = error_of(document)

        assert (error.pointer, error.value) == ("/teachers/1/model", "local-dir:/nowhere")

    def test_without_affinity_the_others_are_a_warning(self, folder: Path, tmp_path: Path) -> None:
        plan = plan_of(self.document(folder, tmp_path) | {"objective": {"feature_mimicry": 1}})

        assert "only affinity uses several teachers" in plan.warnings[0]

    def test_teacher_and_teachers_exclude_each_other(self, folder: Path, tmp_path: Path) -> None:
        document = self.document(folder, tmp_path) | {"teacher": spec(folder)["teacher"]}

        with pytest.raises(ValidationError, match="give either teacher or teachers, not both"):
            JobSpec.model_validate(document)
