"""A job in two languages: a student with a tokenizer of its own learns from a teacher that reads one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from tinyclip.schemas import JobSpec
from tinyclip_workers.data.index.dataset_index import DatasetIndex
from tinyclip_workers.model.architecture import build_model
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.files.sources import find_teacher
from tinyclip_workers.model.vocabularies.vocabulary_change import vocabulary_of
from tinyclip_workers.runtime.attempt import JobAttempt
from tinyclip_workers.training import vocabulary
from tinyclip_workers.training.dataset import open_index_of, prepare_index
from tinyclip_workers.training.vocabulary import read_captions

from tests.workers.attempts import Job, no_cluster
from tests.workers.auto_stages import TEACHER, spec_of
from tests.workers.models import write_folder
from tests.workers.translated import LANGUAGES, both, translated, write_file, write_translated

IMPORTANT = {"name": "half", "inherit": "auto", "prune": {"target_sparsity": 0.3}, "train": {"steps": 6}}
UNIFORM = {"name": "small", "student": {"image": {"layers": 1}}, "train": {"steps": 4}}
TOKENIZER = {"train": {"vocab_size": 1000}}


@pytest.fixture(autouse=True)
def _without_ray() -> Iterator[None]:
    with no_cluster():
        yield


def spec(folder: Path, *, stages: tuple[dict[str, Any], ...] = (IMPORTANT,), **train: Any) -> JobSpec:
    if not (folder / "teacher").exists():
        torch.manual_seed(0)
        write_folder(folder / "teacher", build_model(TEACHER), TEACHER)
    document = spec_of("none", *stages).model_dump()
    document["teacher"] = {"model": f"local-dir:{folder}/teacher", "language": "en"}
    document["data"]["train"] |= {"caption_key": "json.captions", "languages": LANGUAGES, **train}
    task = {"name": "find", "kind": "retrieval", "shards": train["shards"], "image_key": ["png"], "caption_key": "json.captions"}
    document["evaluation"] = {"tasks": [{**task, "languages": LANGUAGES, "captions": train.get("captions")}]}
    return JobSpec.model_validate({**document, "objective": {"feature_mimicry": 1, "affinity": 1}, "tokenizer": TOKENIZER})


class TestJob:
    def test_the_version_has_the_tokenizer_and_a_result_for_each_language(self, tmp_path: Path) -> None:
        job = Job(tmp_path / "store", spec(tmp_path, shards=write_translated(tmp_path / "data"), stages=(UNIFORM,)))

        assert job.attempt(), job.events("attempt.failed")

        version = job.version()
        assert list(version.evaluation) == ["find.en", "find.xx"]
        assert all(scores.teacher is not None for scores in version.evaluation.values())
        folder = job.store.uri("models/shapes/1")
        theirs, ours = open_clip.get_tokenizer(f"local-dir:{folder}"), load_folder(folder).tokenizer
        assert ours(["a red square", "der erauqs"]).equal(theirs(["a red square", "der erauqs"]))
        assert int(ours("a red square").argmax()) == 4  # words of the captions are single tokens
        assert version.layout.text.vocab_size == int(ours("").max()) + 1 < 1000
        card = job.store.read_bytes("models/shapes/1/README.md").decode()
        assert "### find.en" in card
        assert "### find.xx" in card

    def test_a_second_attempt_has_the_same_tokenizer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shards = write_translated(tmp_path / "data")
        job = Job(tmp_path / "store", spec(tmp_path, shards=shards, stages=(IMPORTANT, {**IMPORTANT, "name": "less"})))
        assert job.attempt()
        before = job.store.read_bytes("jobs/job_1/tokenizer/tokenizer.json")
        job.store.remove("jobs/job_1/stages/1-less")
        monkeypatch.setattr(vocabulary, "train_tokenizer", lambda *_: pytest.fail("it is trained once"))

        assert job.attempt(2)

        assert job.store.read_bytes("jobs/job_1/tokenizer/tokenizer.json") == before

    def test_a_tokenizer_can_be_that_of_a_folder(self, tmp_path: Path) -> None:
        document = spec(tmp_path, shards=write_translated(tmp_path / "data"))
        first = Job(tmp_path / "store", document)
        assert first.attempt()
        again = document.model_dump() | {"tokenizer": {"folder": first.store.uri("models/shapes/1")}}
        job = Job(tmp_path / "again", JobSpec.model_validate(again))

        assert job.attempt()

        assert job.version().layout == first.version().layout
        first.assert_same_student(job)

    def test_a_teacher_passes_its_own_tokenizer_on(self, tmp_path: Path) -> None:
        document = spec(tmp_path, shards=write_translated(tmp_path / "data"), stages=(UNIFORM,))
        first = Job(tmp_path / "store", document)
        assert first.attempt()
        teacher = {"model": f"local-dir:{first.store.uri('models/shapes/1')}"}
        smaller = {"name": "smaller", "student": {"text": {"layers": 1}}, "train": {"steps": 2}}
        again = document.model_dump() | {"teacher": teacher, "tokenizer": None, "stages": [smaller, smaller | {"name": "more"}]}
        job = Job(tmp_path / "again", JobSpec.model_validate(again))

        assert job.attempt(), job.events("attempt.failed")

        own, theirs = (load_folder(each.store.uri("models/shapes/1")) for each in (job, first))
        texts = ["a red square", "der erauqs"]
        assert own.tokenizer(texts).equal(theirs.tokenizer(texts))
        assert own.layout.vocab_size == theirs.layout.vocab_size
        inherited, before = own.model.token_embedding.weight, theirs.model.token_embedding.weight
        assert torch.nn.functional.cosine_similarity(inherited, before).min() > 0.99  # a few steps later

    def test_a_folder_of_another_kind_fails_with_the_field(self, tmp_path: Path) -> None:
        document = spec(tmp_path, shards=write_translated(tmp_path / "data"))
        (tmp_path / "words").mkdir()
        broken = document.model_dump() | {"tokenizer": {"folder": str(tmp_path / "words")}}
        job = Job(tmp_path / "store", JobSpec.model_validate(broken))

        assert not job.attempt()

        [failed] = job.events("attempt.failed")
        assert failed["data"] == {"code": "unusable_data", "retryable": False}
        assert "put tokenizer.json and tokenizer_config.json" in failed["message"]


class TestJoinedCaptions:
    def prepare(self, folder: Path, **train: Any) -> tuple[Job, DatasetIndex]:
        job = Job(folder / "store", spec(folder, **train))
        run = JobAttempt.open(job.root, "job_1", 1)
        prepare_index(run)
        return job, open_index_of(run)

    def english(self, folder: Path) -> str:
        return write_translated(folder / "data", lambda n, english: english)

    def test_they_are_of_their_languages_and_those_of_the_shard_of_the_first(self, tmp_path: Path) -> None:
        captions = write_file(tmp_path / "xx.jsonl", pairs=90)

        _, index = self.prepare(tmp_path, shards=self.english(tmp_path), captions=captions)

        rows = index.load_samples(0)
        assert rows.more_captions(0) == ["a der erauqs", "a erauqs ni der"]
        assert rows.more_languages(0) == ["xx", "xx"]
        assert index.load_samples(1).lacking_N.tolist() == [0] * 42 + [0b10] * 6

    def test_another_file_is_another_order(self, tmp_path: Path) -> None:
        shards = self.english(tmp_path)
        one = self.prepare(tmp_path / "a", shards=shards, captions=write_file(tmp_path / "a.jsonl"))[1]
        two = self.prepare(tmp_path / "b", shards=shards, captions=write_file(tmp_path / "b.jsonl", pairs=95))[1]

        assert one.digest != two.digest

    def test_a_file_of_other_keys_ends_the_job(self, tmp_path: Path) -> None:
        job = Job(
            tmp_path / "store",
            spec(tmp_path, shards=self.english(tmp_path), captions=write_file(tmp_path / "xx.jsonl", name="other")),
        )

        assert not job.attempt()

        assert "has captions of none of the samples" in job.events("attempt.failed")[0]["message"]

    def test_a_language_without_captions_ends_the_job(self, tmp_path: Path) -> None:
        job = Job(tmp_path / "store", spec(tmp_path, shards=write_translated(tmp_path / "data"), languages=[*LANGUAGES, "yy"]))

        assert not job.attempt()

        assert "no pair has a caption in yy" in job.events("attempt.failed")[0]["message"]


class TestCaptions:
    def test_those_of_each_language_and_their_translations_are_read(self, tmp_path: Path) -> None:
        shards = write_translated(tmp_path / "data", lambda n, english: both(n, english) if n < 12 else {"en": english})
        job = Job(tmp_path / "store", spec(tmp_path, shards=shards))
        run = JobAttempt.open(job.root, "job_1", 1)
        prepare_index(run)

        captions = read_captions(run.spec, open_index_of(run))

        assert captions.teacher_language == "en"
        assert (len(captions.by_language["en"]), len(captions.by_language["xx"])) == (48, 24)
        assert len(captions.translations) == 24
        assert all(own == translated(theirs) for own, theirs in captions.translations)

    def test_words_start_as_their_translations(self, tmp_path: Path) -> None:
        job = Job(tmp_path / "store", spec(tmp_path, shards=write_translated(tmp_path / "data"), stages=(UNIFORM,)))
        run = JobAttempt.open(job.root, "job_1", 1)
        prepare_index(run)

        made = vocabulary.prepare_tokenizer(run, find_teacher(run.spec.teacher))

        assert made is not None
        assert made.origins is not None
        tokens, clip = vocabulary_of(made.source), SimpleTokenizer()
        for word in ("yellow", "circle", "square", "violet"):
            origins = made.origins[tokens.index(f"{translated(word)}</w>")]
            assert clip.decoder[origins[0][0][0]] == f"{word}</w>"
        assert vocabulary.tokenizer_of(run) == made
