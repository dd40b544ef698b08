"""Findings on captions: whether they are texts at all, whether they differ, and in which languages they are."""

from collections import Counter
from collections.abc import Sequence

from tinyclip.schemas.datasets import DatasetPut, Finding

from tinyclip_workers.datasets.captions.checks import NoText
from tinyclip_workers.datasets.captions.joined_file import CountedCaptions
from tinyclip_workers.datasets.report.distinct import DistinctCaptions
from tinyclip_workers.datasets.report.rules import Severity, make_finding, part_of, severity_of
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, Statistics, example

MIN_SAMPLES = 20
"""Fewer captions may be equal by chance."""
WRONG_KEY_SHARE = 0.5
IDENTICAL_SHARE, FREQUENT_SHARE = 0.5, 0.05
"""Shares of one text, drawn as training draws captions, from which it is an error and a warning."""
FEW_CAPTIONS = 0.01
"""Different captions for each sample, below which too many pairs of a batch have the same one."""
AFFIX_SHARE, WORD_SHARE, LANGUAGE_SHARE = 0.1, 0.5, 0.01
UNCOVERED_WARNING = 0.05
SHOWN = 3


def caption_findings(
    request: DatasetPut, statistics: Statistics, distinct: DistinctCaptions, languages: list[str]
) -> list[Finding]:
    """Return all findings that compare captions with each other, or with sentences. `languages`: of the captions sampled."""
    if statistics.usable < MIN_SAMPLES:
        return []
    found = [
        _no_text(request, statistics),
        _frequent(statistics, statistics.usable),
        _duplicates(request, statistics, distinct),
        _boilerplate(statistics),
        _single_words(statistics),
        _uncovered(statistics, languages),
    ]
    return [finding for finding in found if finding is not None]


def joined_findings(joined: CountedCaptions | None, usable: int) -> list[Finding]:
    """Return findings on captions from another file."""
    if joined is None:
        return []
    found = []
    if joined.unknown:
        known = joined.samples + joined.unknown
        message = f"{part_of(joined.unknown, known)} keys of the file of captions belong to no sample"
        severity = severity_of(joined.unknown / known, 0.01, 0.5)
        remedy = "Keys are names in the shards up to the first dot, with their folders; write the file with these."
        examples = joined.unknown_examples
        found.append(make_finding("unknown_caption_keys", severity, joined.unknown, known, message, remedy, examples))
    if joined.malformed:
        message = f"{joined.malformed:,} lines or rows of the file of captions are no key with captions"
        remedy = 'Write an object as {"key": "…", "captions": ["…"]} on each line, or these columns in Parquet. With languages, '
        remedy += 'captions are {"de": ["…"], "ja": ["…"]}.'
        severity = severity_of(joined.malformed / max(1, joined.malformed + joined.samples), 0.01, 0.5)
        examples = joined.malformed_examples
        found.append(make_finding("malformed_captions", severity, joined.malformed, usable, message, remedy, examples))
    if joined.other_languages:
        listed = ", ".join(f"{language}: {count:,}" for language, count in joined.other_languages.most_common(SHOWN))
        count = joined.other_languages.total()
        message = f"{count:,} captions of the file are in languages that source.languages does not name ({listed}), and not used"
        remedy = "Add the languages to source.languages, or leave them out."
        found.append(make_finding("other_languages", "info", joined.samples, usable, message, remedy))
    if joined.samples >= MIN_SAMPLES and (frequent := _frequent(joined.statistics, joined.samples)) is not None:
        found.append(frequent.model_copy(update={"message": f"in the file of captions, {frequent.message}"}))
    return found


def language_findings(languages: Sequence[str], lacking: Sequence[int], pairs: int) -> list[Finding]:
    """Return findings on languages in which pairs have no caption. `lacking`: the number of such pairs by language."""
    found = []
    for language, count in zip(languages, lacking, strict=True):
        if count and pairs:
            message = f"{part_of(count, pairs)} pairs have no caption in {language}"
            remedy = "They take part with the languages that they have. Write captions, or omit the language in source.languages."
            severity: Severity = "error" if count == pairs else severity_of(count / pairs, 0.5, 2)
            found.append(make_finding("missing_languages", severity, count, pairs, message, remedy))
    return found


def _no_text(request: DatasetPut, statistics: Statistics) -> Finding | None:
    count, total = statistics.counts["no_text_captions"], statistics.usable
    if count / total < 0.001:
        return None
    kinds, key = statistics.reasons["no_text_captions"], request.source.caption_key
    examples = statistics.examples["no_text_captions"]
    listed = ", ".join(f"{times:,} {kind}" for kind, times in Counter(kinds).most_common())
    message = f"{part_of(count, total)} samples have captions that are no words ({listed})"
    if count / total < WRONG_KEY_SHARE:
        remedy = "Remove these samples, or write captions for them."
        return make_finding("no_text_captions", severity_of(count / total, 0.05, 2), count, total, message, remedy, examples)
    [(kind, _)] = Counter(kinds).most_common(1)
    others = [field for field, _ in statistics.fields.most_common() if field != key][:SHOWN]
    fields = f"{', '.join(others)} {'hold' if len(others) > 1 else 'holds'} words" if others else "no other field holds words"
    identifiers = "class or image identifiers" if kind == NoText.IDENTIFIER else kind
    message = f"source.caption_key {key} leads to {identifiers} instead of captions: {message}"
    return make_finding(
        "wrong_caption_key", "error", count, total, message, f"Set source.caption_key to the field of the captions; {fields}.",
        examples,
    )  # fmt: skip


def _frequent(statistics: Statistics, total: int) -> Finding | None:
    text, weight = next(iter(statistics.texts.most(1)), ("", 0.0))
    share = weight / total
    if share < FREQUENT_SHARE:
        return None
    count, examples = round(weight), [example("", "", text)]
    if share < IDENTICAL_SHARE:
        message = f"one caption, {_quoted(text)}, is that of {part_of(count, total)} samples"
        remedy = "Give these images captions of their own, or remove most of them: they are each other's negatives."
        return make_finding("frequent_captions", "warning", count, total, message, remedy, examples)
    message = f"captions are identical: {_quoted(text)} is that of {part_of(count, total)} samples"
    remedy = "Set source.caption_key to the field that describes each image; nothing can be learned from one text."
    return make_finding("identical_captions", "error", count, total, message, remedy, examples)


def _duplicates(request: DatasetPut, statistics: Statistics, distinct: DistinctCaptions) -> Finding | None:
    count, total = distinct.repeated_samples, statistics.usable
    if count / total < 0.001:
        return None
    few = distinct.distinct < FEW_CAPTIONS * total and request.source.distinct_key is None
    about = "about " if distinct.estimated else ""
    message = f"{about}{part_of(count, total)} samples have only captions that other samples have, too"
    message += f"; there are {about}{distinct.distinct:,} different ones"
    remedy = "Pairs with the same caption are each other's negatives in a batch. Name a field that they share as "
    remedy += "source.distinct_key, so that no batch has two of them, or give images several captions."
    examples = [example("", "", f"{text} ({weight:,.0f} samples)") for text, weight in statistics.texts.most(SHOWN) if weight > 1]
    severity: Severity = "warning" if few else "info"
    return make_finding(
        "duplicate_captions", severity, count, total, message, remedy, examples, estimated=distinct.estimated
    )  # fmt: skip


def _boilerplate(statistics: Statistics) -> Finding | None:
    found = []
    for place, texts in (("begin with", statistics.beginnings), ("end with", statistics.endings)):
        found += [(weight, place, text) for text, weight in texts.most(SHOWN) if weight >= AFFIX_SHARE * statistics.usable]
    if not found:
        return None
    found.sort(key=lambda each: (-each[0], each[2]))
    parts = [f"{round(100 * weight / statistics.usable)}% {place} {_quoted(text)}" for weight, place, text in found[:SHOWN]]
    remedy = "Harmless if you will write prompts like these. Otherwise remove the words: all captions spend tokens on them."
    count = round(found[0][0])
    return make_finding(
        "boilerplate_captions", "info", count, statistics.usable, f"captions are alike: {', '.join(parts)}", remedy,
        [example("", "", text) for _, _, text in found],
    )  # fmt: skip


def _single_words(statistics: Statistics) -> Finding | None:
    count, total = statistics.counts["single_word_captions"], statistics.usable
    wrong_key = statistics.counts["no_text_captions"] >= WRONG_KEY_SHARE * total
    if count < WORD_SHARE * total or wrong_key:
        return None
    remedy = "If these are names of classes, put them into sentences, such as `a photo of a NAME`: models are trained on these."
    return make_finding(
        "single_word_captions", "info", count, total, f"{part_of(count, total)} samples have captions of a single word", remedy
    )


def _uncovered(statistics: Statistics, languages: list[str]) -> Finding | None:
    uncovered = [(code, each.uncovered) for code, each in zip(languages, statistics.languages, strict=True) if each.uncovered]
    count, looked_at = len(uncovered), len(languages)
    if not looked_at or count / looked_at < LANGUAGE_SHARE:
        return None
    by_count = Counter(code for code, _ in uncovered).most_common(SHOWN)
    names = ", ".join(f"{code}: {round(100 * times / looked_at)}%" for code, times in by_count)
    message = f"{part_of(count, looked_at)} captions looked at are in languages that CLIP's tokenizer does not cover ({names}): "
    message += "it divides their words into single letters or bytes"
    remedy = "Train a tokenizer of the students on these captions (tokenizer: {train: {vocab_size: 16000}}), or use captions in "
    remedy += "English, such as translations: with CLIP's tokenizer a model learns little from the others."
    samples, severity = round(count / looked_at * statistics.usable), severity_of(count / looked_at, UNCOVERED_WARNING, 0.5)
    return make_finding(
        "uncovered_languages", severity, samples, statistics.usable, message, remedy,
        [example for _, example in uncovered[:MAX_EXAMPLES]], estimated=looked_at < statistics.usable,
    )  # fmt: skip


def _quoted(text: str) -> str:
    return f"“{text[:60]}{'…' if len(text) > 60 else ''}”"
