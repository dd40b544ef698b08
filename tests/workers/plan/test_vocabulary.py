"""Plans with reduced vocabularies."""

from pathlib import Path

from tinyclip.schemas import ExportOptions
from tinyclip_workers.exporting.formats.tinyclip import export_tinyclip
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.vocabularies.vocabulary import Vocabulary, reduced_model
from tinyclip_workers.plan.specs import plan_or_errors

from tests.workers.plan_specs import spec, write_data


def test_the_version_of_a_student_with_clips_vocabulary_can_have_a_reduced_one(tmp_path: Path) -> None:
    document = {**spec(write_data(tmp_path)), "vocabulary": "reduced"}

    assert plan_or_errors(document)["plan"]["spec"]["vocabulary"] == "reduced"


def test_a_student_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    document = {**spec(write_data(tmp_path)), "vocabulary": "reduced"}
    document["stages"][1]["inherit"] = "none"
    tower = {"layers": 1, "width": 8, "heads": 1, "context_length": 16, "vocab_size": 50_000}
    image = {"layers": [1, 1, 1, 1], "width": 4, "head_width": 32, "image_size": 32}
    document["stages"][1]["student"] = {"text": tower, "image": image, "embed_dim": 16}

    [error] = plan_or_errors(document)["errors"]

    assert (error["pointer"], error["value"]) == ("/vocabulary", "reduced")
    assert "the student has 50,000" in error["message"]


def test_a_student_with_a_tokenizer_of_its_own_is_refused(tmp_path: Path) -> None:
    document = {**spec(write_data(tmp_path)), "vocabulary": "reduced", "tokenizer": {"train": {"vocab_size": 1000}}}
    document["data"]["train"]["languages"] = ["en"]

    errors = plan_or_errors(document)["errors"]

    assert [error["message"] for error in errors if error["pointer"] == "/vocabulary"] == [
        "only the vocabulary of CLIP's tokenizer can be reduced, and tokenizer gives another one; omit one of the two"
    ]


def test_a_teacher_with_a_reduced_vocabulary_is_refused(tmp_path: Path) -> None:
    document = spec(write_data(tmp_path))
    (tmp_path / "small").mkdir()
    small = reduced_model(load_folder(str(tmp_path / "teacher")), Vocabulary.of_tokens([320]))
    export_tinyclip(small, tmp_path / "small", ExportOptions())
    document["teacher"]["model"] = f"local-dir:{tmp_path}/small"

    errors = plan_or_errors(document)["errors"]

    [message] = [error["message"] for error in errors if error["pointer"] == "/teacher/model"]
    assert message == "has a reduced vocabulary of 514 tokens; use the version with the whole one"
