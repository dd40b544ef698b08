"""Each batch has as many pairs of each language as of any other, and teachers read the translation of the student's caption."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tinyclip_workers.data.stream.batches import Batch
from tinyclip_workers.data.stream.inputs import TeacherInputs, TextInput
from tinyclip_workers.data.stream.languages import NONE, divide

from tests.workers.data.stream.streams import equal, letters, stream, take, texts
from tests.workers.translated import LANGUAGES, both, translated, write_translated

OPTIONS = {"languages": LANGUAGES}


def languages_in(batch: Batch) -> list[str]:
    return ["en" if text.startswith("a ") and text.split(" ")[1] in ENGLISH else "xx" for text in texts(batch)]


ENGLISH = {"red", "green", "blue", "yellow", "black", "violet", "square", "circle", "triangle", "bar"}


class TestDivision:
    @pytest.mark.parametrize(("pairs", "languages"), [(64, 6), (7, 3), (8, 3), (2, 5)])
    def test_counts_differ_by_at_most_one(self, pairs: int, languages: int) -> None:
        counts = np.bincount(divide(np.zeros(pairs, np.uint64), languages, np.random.default_rng(0)), minlength=languages)

        assert counts.sum() == pairs
        assert counts.max() - counts.min() <= 1

    def test_the_languages_that_have_one_more_change(self) -> None:
        rng = np.random.default_rng(0)

        larger = {int(np.bincount(divide(np.zeros(4, np.uint64), 3, rng), minlength=3).argmax()) for _ in range(30)}

        assert larger == {0, 1, 2}

    def test_with_missing_captions_no_division_is_more_equal(self) -> None:
        rng = np.random.default_rng(1)
        for _ in range(200):
            lacking_N = rng.integers(0, 8, rng.integers(1, 7)).astype(np.uint64)

            chosen_N = divide(lacking_N, 3, rng)

            counts = np.bincount(chosen_N[chosen_N != NONE], minlength=3)
            assert (counts**2).sum() == most_equal(lacking_N, 3)
            for lacking, chosen in zip(lacking_N.tolist(), chosen_N.tolist(), strict=True):
                assert (chosen == NONE) == (lacking == 7)
                assert chosen == NONE or not lacking >> chosen & 1

    def test_a_long_exchange_is_found(self) -> None:
        """Pairs in turn have only two neighbouring languages; one more pair of the first must push one along all of them."""
        lacking = [~(0b11 << first) & 0b11111 for first in range(4)] + [0b11110]

        counts = np.bincount(divide(np.array(lacking, np.uint64), 5, np.random.default_rng(0)), minlength=5)

        assert counts.tolist() == [1, 1, 1, 1, 1]


def most_equal(lacking_N: NDArray[np.uint64], languages: int) -> int:
    """Return the least sum of squared counts of all divisions."""
    choices = [[each for each in range(languages) if not lacking >> each & 1] or [NONE] for lacking in lacking_N.tolist()]
    divisions = (Counter(each for each in division if each != NONE) for division in itertools.product(*choices))
    return min(sum(count**2 for count in counts.values()) for counts in divisions)


class TestBatches:
    def test_every_batch_has_the_same_number_of_each(self, tmp_path: Path) -> None:
        batches = take(stream(write_translated(tmp_path), train=OPTIONS), 30)

        assert {tuple(sorted(Counter(languages_in(batch)).items())) for batch in batches} == {(("en", 4), ("xx", 4))}

    def test_a_pair_has_another_language_in_another_epoch(self, tmp_path: Path) -> None:
        batches = take(stream(write_translated(tmp_path), train=OPTIONS), 60)

        seen: dict[int, set[str]] = {}
        for batch in batches:
            for sample, language in zip(batch.samples_B.tolist(), languages_in(batch), strict=True):
                seen.setdefault(sample, set()).add(language)
        assert sum(len(languages) == 2 for languages in seen.values()) > len(seen) / 2

    @pytest.mark.parametrize("workers", [2, 4])
    def test_workers_together_see_the_batches_of_one(self, tmp_path: Path, workers: int) -> None:
        shards = write_translated(tmp_path, lambda n, english: english if n % 3 == 0 else both(n, english))
        whole = take(stream(shards, train=dict(OPTIONS)), 8)

        ranks = [take(stream(shards, train=dict(OPTIONS), rank=rank, world_size=workers), 8) for rank in range(workers)]

        for step, batch in enumerate(whole):
            assert texts(batch) == [text for rank in ranks for text in texts(rank[step])]

    def test_a_resumed_stream_continues(self, tmp_path: Path) -> None:
        shards = write_translated(tmp_path)
        whole = take(stream(shards, train=dict(OPTIONS)), 15)

        resumed = take(stream(shards, train=dict(OPTIONS), start=whole[9].position), 5)

        assert all(equal(a, b) for a, b in zip(whole[10:], resumed, strict=True))

    def test_pairs_take_part_with_the_languages_that_they_have(self, tmp_path: Path) -> None:
        """Two of three pairs have English captions only: most batches can still have as many of both."""
        shards = write_translated(tmp_path, lambda n, english: both(n, english) if n % 3 == 0 else {"en": english})

        batches = take(stream(shards, train={**OPTIONS, "distinct_key": None}), 12)

        for batch in batches:
            possible = sum(sample % 3 == 0 for sample in batch.samples_B.tolist())
            assert languages_in(batch).count("xx") == min(possible, 4)
        assert batches[-1].skipped.samples == 0

    def test_a_pair_of_another_language_only_is_skipped_and_counted(self, tmp_path: Path) -> None:
        shards = write_translated(tmp_path, lambda n, english: both(n, english) if n else {"yy": english})

        batches = take(stream(shards, train=OPTIONS), 12)

        assert batches[-1].skipped.samples == 1
        assert "it has no caption in en, xx; it has yy" in batches[-1].skipped.examples[0]
        assert all(len(texts(batch)) == 8 for batch in batches)


class TestTeachers:
    def test_a_teacher_reads_the_translation_of_the_caption(self, tmp_path: Path) -> None:
        teacher = TeacherInputs(texts=[TextInput(letters, language="en")])

        for batch in take(stream(write_translated(tmp_path), train=OPTIONS, teacher_inputs=teacher), 12):
            english = texts_of(batch.teacher_tokens[0])
            expected = [text if language == "en" else translated(text) for text, language in
                        zip(texts(batch), languages_in(batch), strict=True)]  # fmt: skip
            assert english == expected

    def test_without_a_language_it_reads_the_students_caption(self, tmp_path: Path) -> None:
        teacher = TeacherInputs(texts=[TextInput(letters)])

        batch = take(stream(write_translated(tmp_path), train=OPTIONS, teacher_inputs=teacher), 1)[0]

        assert texts_of(batch.teacher_tokens[0]) == texts(batch)

    def test_a_pair_without_the_teachers_language_is_skipped(self, tmp_path: Path) -> None:
        shards = write_translated(tmp_path, lambda n, english: both(n, english) if n else {"xx": english})
        teacher = TeacherInputs(texts=[TextInput(letters, language="en")])

        batch = take(stream(shards, train=OPTIONS, teacher_inputs=teacher), 12)[-1]

        assert batch.skipped.samples == 1
        assert "it has no caption in en, which a teacher reads" in batch.skipped.examples[0]

    def test_all_captions_can_be_in_one_language(self, tmp_path: Path) -> None:
        batches = take(stream(write_translated(tmp_path), train=OPTIONS, language="xx"), 3)

        assert {language for batch in batches for language in languages_in(batch)} == {"xx"}


def texts_of(tokens_BT: torch.Tensor) -> list[str]:
    return ["".join(chr(c) for c in row).strip().removesuffix("~") for row in tokens_BT.tolist()]
