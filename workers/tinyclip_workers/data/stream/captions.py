"""The captions of a pair: one is drawn, and in other languages, which teachers read, its translation."""

from collections.abc import Mapping, Sequence

import numpy as np
from tinyclip.schemas.spec import TrainData

from tinyclip_workers.data.samples import Sample, UnusableSample, captions_by_language, captions_of
from tinyclip_workers.data.stream.fetching import Found
from tinyclip_workers.data.stream.languages import NONE


def all_captions(sample: Sample, found: Found, train: TrainData) -> list[str]:
    """Return the captions of a pair, of all languages: those in its shard, then those that were joined. Raises any exception."""
    return [*captions_of(sample, train.caption_key), *found.more_captions]


def draw_translations(
    sample: Sample, found: Found, train: TrainData, language: int, read: Sequence[str | None], rng: np.random.Generator
) -> list[str]:
    """Draw the captions of a pair that several models read: in the language of that number, or in their own.

    Where a language has as many captions as the pair's, they are its translations in the same order, and the same one is taken.
    Raises any exception, also if a language is missing.
    """
    texts = texts_by_language(sample, found, train.languages[0], train.caption_key)
    if language == NONE:
        raise UnusableSample(f"it has no caption in {', '.join(train.languages)}; it has {', '.join(texts)}")
    own = texts[train.languages[language]]
    number = int(rng.integers(len(own)))
    drawn: dict[str | None, str] = {None: own[number]}
    for other in dict.fromkeys(read):
        if other is not None:
            drawn[other] = _translation(texts, other, number, len(own), rng)
    return [drawn[each] for each in read]


def texts_by_language(sample: Sample, found: Found, default: str, caption_key: str) -> Mapping[str, list[str]]:
    """Return the captions of a pair by language; those without one are of the `default`. Raises any exception."""
    texts = captions_by_language(sample, caption_key, default)
    for text, language in zip(found.more_captions, found.more_languages, strict=True):
        texts.setdefault(language or default, []).append(text)
    return texts


def _translation(texts: Mapping[str, list[str]], language: str, number: int, count: int, rng: np.random.Generator) -> str:
    theirs = texts.get(language)
    if not theirs:
        raise UnusableSample(f"it has no caption in {language}, which a teacher reads")
    return theirs[number if len(theirs) == count else int(rng.integers(len(theirs)))]
