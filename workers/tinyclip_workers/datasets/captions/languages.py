"""The languages of captions, and those that a tokenizer does not cover."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tinyclip_workers.datasets.captions.checks import DEFAULT_CONTEXT, tokenizer_of
from tinyclip_workers.datasets.statistics import CaptionLanguage

LANGUAGES = [
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi", "hr", "hu", "id",
    "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ms", "nl", "no", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sq",
    "sr", "sv", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh",
]  # fmt: skip
"""The languages that are distinguished: few words are easily taken for one of a hundred others."""
UNDETERMINED = "und"
CANDIDATES = 5
"""Languages that are considered for a caption."""
MIN_PROBABILITY = 0.5
"""A caption whose most probable language is less probable is undetermined."""
ROUNDS = 20
MEASURED_CHARACTERS = 24
"""Of the beginning of a text: more may not fit into the tokenizer's context, whose tokens are at most three for each of them."""
UNCOVERED_TOKENS = 0.75
"""Tokens for each character from which a tokenizer does not cover a text. CLIP's makes 0.25 of English, up to 0.55 of other
languages in Latin letters, and 0.85 to 2.5 of those in others, whose words it does not have."""


def probable_languages(text: str) -> dict[str, float]:
    """Return the most probable languages of a text with their probabilities."""
    return {code: round(float(probability), 3) for code, probability in _identifier().rank(text)[:CANDIDATES]}


def determine(captions: Sequence[CaptionLanguage]) -> list[str]:
    """Return the language of each caption; `und` where it cannot be determined.

    Few words alone are of any language, but most captions of a data set are in the same ones: the frequency of each language is
    estimated from all captions (expectation maximisation), and weighs its probability in each of them.
    """
    codes = sorted({code for caption in captions for code in caption.probabilities})
    column = {code: number for number, code in enumerate(codes)}
    likelihood_NL = np.full((len(captions), len(codes)), 1e-4)
    for row, caption in enumerate(captions):
        for code, probability in caption.probabilities.items():
            likelihood_NL[row, column[code]] = max(probability, 1e-4)
    share_L = np.full(len(codes), 1 / max(1, len(codes)))
    posterior_NL = likelihood_NL
    for _ in range(ROUNDS):
        posterior_NL = likelihood_NL * share_L
        posterior_NL /= posterior_NL.sum(axis=1, keepdims=True)
        share_L = posterior_NL.mean(axis=0) if len(captions) else share_L
    best_N = posterior_NL.argmax(axis=1) if len(codes) else np.zeros(0, dtype=np.int64)
    found = zip(best_N.tolist(), posterior_NL, strict=True)
    return [codes[best] if row[best] >= MIN_PROBABILITY else UNDETERMINED for best, row in found]


def shares(languages: Sequence[str], smallest: float) -> dict[str, float]:
    """Return the share of each language, the largest first; others than `und` below `smallest` are left out."""
    counts = Counter(languages)
    found = {code: round(count / len(languages), 4) for code, count in counts.items()}
    large = {code: share for code, share in found.items() if share >= smallest or code == UNDETERMINED}
    return dict(sorted(large.items(), key=lambda item: (-item[1], item[0])))


def is_uncovered(text: str) -> bool:
    """Return whether CLIP's tokenizer divides a text in other letters than ASCII into single characters or bytes."""
    beginning = text[:MEASURED_CHARACTERS]
    if not any(character.isalpha() and not character.isascii() for character in beginning):
        return False
    return len(tokenizer_of(DEFAULT_CONTEXT).encode(beginning)) >= UNCOVERED_TOKENS * len(beginning)


@cache
def _identifier() -> Any:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
