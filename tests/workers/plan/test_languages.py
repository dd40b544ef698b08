"""Plans of jobs in several languages, and of students with a tokenizer of their own."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tinyclip.schemas import FieldError, JobSpec, Plan
from tinyclip_workers.plan.specs import make_plan

from tests.workers.plan_specs import Document, spec, write_data

GERMAN = {"captions": {"de": ["ein Quadrat"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("plan"))
    lines = "\n".join(json.dumps({"key": f"s{number:04d}", **GERMAN}) for number in range(64))
    (folder / "german.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def in_languages(folder: Path, *languages: str, **train: Any) -> Document:
    document = spec(folder)
    document["data"]["train"] |= {"captions": f"{folder}/german.jsonl.gz", "languages": list(languages), **train}
    return document


def errors_of(document: Document) -> list[FieldError]:
    found = make_plan(JobSpec.model_validate(document))
    assert not isinstance(found, Plan), f"a plan was made, with {found.warnings}"
    return found


def plan_of(document: Document) -> Plan:
    plan = make_plan(JobSpec.model_validate(document))
    assert isinstance(plan, Plan), plan
    return plan


class TestLanguages:
    def test_captions_of_shards_and_of_the_file_are_found(self, folder: Path) -> None:
        plan = plan_of(in_languages(folder, "en", "de"))

        assert not any("languages" in warning for warning in plan.warnings)

    def test_a_language_without_captions_is_an_error_with_those_that_there_are(self, folder: Path) -> None:
        [error] = errors_of(in_languages(folder, "en", "de", "fr"))

        assert (error.pointer, error.value) == ("/data/train/languages/2", "fr")
        assert "they are in de, en" in error.message or "they are in en, de" in error.message

    def test_captions_that_no_language_uses_are_a_warning(self, folder: Path) -> None:
        assert any("does not name de" in warning for warning in plan_of(in_languages(folder, "en")).warnings)

    def test_a_missing_file_is_an_error(self, folder: Path) -> None:
        errors = errors_of(in_languages(folder, "en", captions="/nowhere.jsonl"))

        [error] = [each for each in errors if "captions" in each.pointer]

        assert error.pointer == "/data/train/captions"
        assert "there is no file /nowhere.jsonl" in error.message

    def test_a_file_of_something_else_is_an_error(self, folder: Path) -> None:
        (folder / "text").write_text("no JSON\n")

        errors = errors_of(in_languages(folder, "en", captions=f"{folder}/text"))

        assert any(error.pointer == "/data/train/captions" and "is not JSON" in error.message for error in errors)

    def test_tasks_are_checked_by_language(self, folder: Path) -> None:
        document = spec(folder)
        document["evaluation"]["tasks"][1] |= {"languages": ["en", "de", "fr"], "captions": f"{folder}/german.jsonl.gz"}
        document["evaluation"]["tasks"][0]["name"] = "words.de"

        errors = {error.pointer: error.message for error in errors_of(document)}

        assert "no caption that was read is in fr" in errors["/evaluation/tasks/1/languages/2"]
        assert "is also the name of another task" in errors["/evaluation/tasks/0/name"]

    def test_classes_of_a_language_that_do_not_fit_are_an_error(self, folder: Path) -> None:
        document = spec(folder)
        classes = document["evaluation"]["tasks"][0]["classes"]
        document["evaluation"]["tasks"][0]["classes"] = {"en": classes, "de": classes[:1]}

        assert [error.pointer for error in errors_of(document)] == ["/evaluation/tasks/0/classes"]


class TestTeacher:
    def test_it_reads_one_of_the_languages(self, folder: Path) -> None:
        document = in_languages(folder, "en", "de")
        document["teacher"]["language"] = "fr"

        with pytest.raises(ValidationError, match=r"teacher\.language fr is none of the languages .*; one of en, de"):
            JobSpec.model_validate(document)

    def test_a_language_needs_languages(self, folder: Path) -> None:
        document = spec(folder)
        document["teacher"]["language"] = "en"

        with pytest.raises(ValidationError, match=r"add data\.train\.languages"):
            JobSpec.model_validate(document)


class TestTokenizer:
    def test_students_have_its_vocabulary_and_the_plan_says_how_rows_start(self, folder: Path) -> None:
        document = spec(folder) | {"tokenizer": {"train": {"vocab_size": 3000}}}

        plan = plan_of(document)

        assert [stage.student.layout.vocab_size for stage in plan.stages] == [3000, 3000]
        assert any("starts as the same token of the teacher; else" in warning for warning in plan.warnings)

    def test_the_resolved_spec_is_valid(self, folder: Path) -> None:
        plan = plan_of(spec(folder) | {"tokenizer": {"train": {"vocab_size": 3000}}})

        again = plan_of(plan.spec.model_dump())

        assert again.stages == plan.stages

    def test_a_folder_without_a_tokenizer_is_an_error(self, folder: Path) -> None:
        [error] = errors_of(spec(folder) | {"tokenizer": {"folder": str(folder)}})

        assert error.pointer == "/tokenizer/folder"
        assert "put tokenizer.json and tokenizer_config.json" in error.message

    def test_its_size_is_not_given_twice(self, folder: Path) -> None:
        document = spec(folder) | {"tokenizer": {"train": {"vocab_size": 3000}}}
        document["stages"][0]["student"]["text"]["vocab_size"] = 49408

        with pytest.raises(ValidationError, match=r"stages\.0\.student\.text\.vocab_size is that of the tokenizer"):
            JobSpec.model_validate(document)

    @pytest.mark.parametrize("tokenizer", [{}, {"train": {}, "folder": "x"}])
    def test_it_is_trained_or_read(self, folder: Path, tokenizer: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="give either train"):
            JobSpec.model_validate(spec(folder) | {"tokenizer": tokenizer})
