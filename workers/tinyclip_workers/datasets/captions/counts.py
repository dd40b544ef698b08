"""Counts of the captions of one shard."""

import heapq
from collections.abc import Callable, Sequence

from tinyclip_workers.datasets.captions import checks
from tinyclip_workers.datasets.captions.languages import is_uncovered, probable_languages
from tinyclip_workers.datasets.statistics import CaptionLanguage, Statistics, example


class CaptionCounter:
    """Adds the captions of samples to the statistics of a shard."""

    def __init__(self, url: str, statistics: Statistics, context_length: int, languages: int) -> None:
        """`languages`: captions whose language is determined."""
        self._url, self._statistics = url, statistics
        self._checks: tuple[tuple[str, Callable[[str], bool]], ...] = (
            ("url_captions", checks.has_url), ("html_captions", checks.has_html), ("cut_captions", checks.is_cut),
            ("truncated_captions", checks.length_check(context_length)),
        )  # fmt: skip
        self._sample = _CaptionSample(languages)

    def add(self, key: str, captions: Sequence[str]) -> None:
        """Count the captions of a usable sample."""
        statistics, weight, texts = self._statistics, 1 / len(captions), [checks.normalized(caption) for caption in captions]
        statistics.captions += len(captions)
        for caption, text in zip(captions, texts, strict=True):
            statistics.lengths[len(caption)] += 1
            statistics.texts.add(text[: checks.MAX_NO_TEXT], weight)
            if (ends := checks.affixes(text)) is not None:
                statistics.beginnings.add(ends[0], weight)
                statistics.endings.add(ends[1], weight)
        kinds = [checks.no_text(caption) for caption in captions]
        if all(kinds):
            statistics.count("no_text_captions", example(key, self._url, captions[0]), str(kinds[0]))
        for code, is_found in self._checks:
            if (found := next((caption for caption in captions if is_found(caption)), None)) is not None:
                statistics.count(code, example(key, self._url, found))
        if all(" " not in text for text in texts):
            statistics.count("single_word_captions")
        self._sample.add(key, captions)

    def finish(self) -> None:
        """Add the probable languages of a sample of the captions."""
        for key, text in self._sample.texts():
            uncovered = example(key, self._url, text) if is_uncovered(text) else None
            self._statistics.languages.append(CaptionLanguage(probable_languages(text), uncovered))


class _CaptionSample:
    """Captions of some samples, chosen by a hash of their key, one of each."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, str, str]] = []

    def add(self, key: str, captions: Sequence[str]) -> None:
        rank = checks.text_hash(key.encode("utf-8", "surrogatepass").hex())
        entry = (-rank, key, captions[rank % len(captions)])
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def texts(self) -> list[tuple[str, str]]:
        """Return keys and captions."""
        return [(key, text) for _, key, text in sorted(self._heap, reverse=True)]
