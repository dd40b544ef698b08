"""Tasks in several languages have a result for each of them."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tinyclip.schemas.spec import RetrievalTask
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.evaluation.labels import task_pointer
from tinyclip_workers.evaluation.tasks import evaluate_tasks
from tinyclip_workers.model.files.folders import LoadedModel

from tests.workers.evaluation.test_tasks import CLASSES, color_model, zero_shot
from tests.workers.shards import color_samples, write_shard

GERMAN = {"red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb"}
IN_GERMAN = [f"eins in {GERMAN.get(name, name.upper())}" for name in CLASSES]


@pytest.fixture
def shard(tmp_path: Path) -> str:
    return write_shard(tmp_path / "val.tar", color_samples(40))


def reader_of(words: list[str]) -> LoadedModel:
    """A model that recognises the colors by these words for them, and takes every other text for the first color."""

    def tokenizer(texts: str | list[str]) -> torch.Tensor:
        return torch.tensor([[next((i for i, word in enumerate(words) if word in text), 0)] for text in texts])

    return replace(color_model(), tokenizer=tokenizer)


class TestZeroShot:
    def test_each_language_has_its_own_result(self, shard: str) -> None:
        task = zero_shot(shard, classes={"en": CLASSES, "de-AT": IN_GERMAN}, templates=["{}"])

        found = evaluate_tasks({"english": reader_of(CLASSES), "german": reader_of(IN_GERMAN)}, [task])

        top1 = {name: {model: scores["top1"] for model, scores in result.items()} for name, result in found.items()}
        assert top1 == {"colors.en": {"english": 1.0, "german": 0.25}, "colors.de-at": {"english": 0.25, "german": 1.0}}

    def test_templates_can_be_by_language(self, shard: str) -> None:
        by_language = {"en": ["a {} one"], "de": ["ein {} es"]}
        task = zero_shot(shard, classes={"en": CLASSES, "de": IN_GERMAN}, templates=by_language)

        found = evaluate_tasks({"it": reader_of([f"ein {name} es" for name in IN_GERMAN])}, [task])

        assert (found["colors.en"]["it"]["top1"], found["colors.de"]["it"]["top1"]) == (0.25, 1.0)

    def test_templates_of_other_languages_are_refused(self, shard: str) -> None:
        with pytest.raises(ValidationError, match="templates has other languages than classes"):
            zero_shot(shard, classes={"en": CLASSES}, templates={"de": ["ein {}"]})


class TestRetrieval:
    def task(self, shard: str, **changes: Any) -> RetrievalTask:
        task = {"name": "words", "kind": "retrieval", "shards": shard, "image_key": ["png"], "languages": ["en", "de"]}
        return RetrievalTask.model_validate({**task, **changes})

    def captions(self, path: Path, count: int = 40) -> str:
        keys = [sample["__key__"] for sample in color_samples(40)]
        lines = [json.dumps({"key": key, "captions": {"de": [IN_GERMAN[n % 4]]}}) for n, key in enumerate(keys[:count])]
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        return str(path)

    def test_captions_of_a_file_are_joined_to_those_of_the_shard(self, shard: str, tmp_path: Path) -> None:
        task = self.task(shard, captions=self.captions(tmp_path / "more.jsonl.gz"))

        found = evaluate_tasks({"english": reader_of(CLASSES), "german": reader_of(IN_GERMAN)}, [task])

        assert list(found) == ["words.en", "words.de"]
        assert found["words.de"]["german"]["image_to_text_r1"] == 1.0
        assert found["words.de"]["english"]["image_to_text_r1"] < 0.5
        assert found["words.en"]["english"]["image_to_text_r10"] == 1.0
        assert found["words.en"]["german"]["image_to_text_r10"] < 0.5

    def test_samples_without_a_caption_in_a_language_are_counted(self, shard: str, tmp_path: Path) -> None:
        task = self.task(shard, captions=self.captions(tmp_path / "more.jsonl.gz", count=30))

        found = evaluate_tasks({"it": reader_of(IN_GERMAN)}, [task])

        assert (found["words.de"]["it"]["samples"], found["words.de"]["it"]["skipped"]) == (30, 10)
        assert found["words.en"]["it"]["samples"] == 40

    def test_the_error_of_a_language_names_the_field_of_the_task(self, shard: str) -> None:
        task = self.task(shard, captions="/nowhere/captions.jsonl")

        with pytest.raises(DataError) as error:
            evaluate_tasks({"it": color_model()}, [task])

        assert task_pointer([task], error.value) == "/tasks/0/captions"

    def test_a_file_without_languages_is_refused(self, shard: str) -> None:
        with pytest.raises(ValidationError, match="captions are by language; give languages"):
            self.task(shard, languages=[], captions="file")
