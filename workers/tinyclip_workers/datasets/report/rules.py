"""Findings that are a count of samples: what each means, what to do, and from which share it is serious."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from tinyclip.schemas import JSON
from tinyclip.schemas.datasets import DatasetSource, Finding

from tinyclip_workers.datasets.statistics import Statistics

Severity = Literal["info", "warning", "error"]
SHOWN_REASONS = 3
SMALLEST_SHARE = 0.001
"""Share below which a finding that is only an information is not reported."""


@dataclass(frozen=True)
class Rule:
    """A finding that is a count of samples."""

    code: str
    what: str
    """After "12 of 100 samples (12%)". `{image_key}` and `{caption_key}` are replaced."""
    remedy: str
    warning: float = 2.0
    """Share from which it is a warning; above 1: it never is."""
    error: float = 2.0
    always: bool = False
    """True if even one sample is reported."""


SKIPPED = "Training skips them."
RULES = (
    Rule(
        "missing_images", "have no image under {image_key}",
        f"{SKIPPED} Add their extension to source.image_key, or remove these samples.", 0.01, 0.2, always=True,
    ),
    Rule(
        "unreadable_images", "have an image that cannot be decoded",
        f"{SKIPPED} Download or convert them again, or remove these samples.", 0.01, 0.2, always=True,
    ),
    Rule(
        "missing_captions", "have no caption under {caption_key}",
        f"{SKIPPED} Correct source.caption_key, or remove these samples.", 0.01, 0.2, always=True,
    ),
    Rule(
        "empty_captions", "have an empty caption", f"{SKIPPED} Write captions, or remove these samples.", 0.01, 0.2, always=True
    ),
    Rule(
        "unreadable_captions", "have a caption under {caption_key} that is no text",
        f"{SKIPPED} Write captions as UTF-8 text or as JSON, or correct source.caption_key.", 0.01, 0.2, always=True,
    ),
    Rule(
        "black_images", "have a black image",
        "Remove them, and find out where they come from: often a failed download or conversion.", 0.01, 0.1,
    ),
    Rule(
        "blank_images", "have an image of a single colour",
        "Remove them, and find out where they come from: often placeholders of a web site.", 0.01, 0.1,
    ),
    Rule("url_captions", "have a caption with an address of the web", "Remove addresses from the captions.", 0.1),
    Rule("html_captions", "have a caption with HTML", "Remove tags and convert entities such as &amp;.", 0.1),
    Rule(
        "cut_captions", "have a caption that ends in an ellipsis, so it was shortened",
        "Take the captions from a source that has all of them.", 0.2,
    ),
    Rule(
        "truncated_captions", "have a caption that is longer than the tokenizer's context, so its end is not read",
        "Shorten them, or put what the image shows first; several short captions are better than a long one.", 0.2,
    ),
)  # fmt: skip


def counted_findings(statistics: Statistics, source: DatasetSource) -> list[Finding]:
    """Return the findings of RULES."""
    keys = {"image_key": ", ".join(source.image_key), "caption_key": source.caption_key}
    return [finding for rule in RULES if (finding := _finding(rule, statistics, keys)) is not None]


def _finding(rule: Rule, statistics: Statistics, keys: dict[str, str]) -> Finding | None:
    count, total = statistics.counts[rule.code], statistics.kept
    if not count or (count / total < SMALLEST_SHARE and not rule.always):
        return None
    reasons = statistics.reasons.get(rule.code, Counter())
    details = "; ".join(f"{times:,}: {reason}" for reason, times in list(reasons.items())[:SHOWN_REASONS])
    message = f"{part_of(count, total)} samples {rule.what.format(**keys)}{f' ({details})' if len(reasons) > 1 else ''}"
    severity = severity_of(count / total, rule.warning, rule.error)
    return make_finding(rule.code, severity, count, total, message, rule.remedy, statistics.examples.get(rule.code, []))


def severity_of(share: float, warning: float, error: float) -> Severity:
    return "error" if share >= error else "warning" if share >= warning else "info"


def make_finding(
    code: str, severity: Severity, count: int, total: int, message: str, remedy: str, examples: list[JSON] | None = None,
    *, estimated: bool = False,
) -> Finding:  # fmt: skip
    """Return a finding; `message` becomes a sentence."""
    share = round(count / max(1, total), 4)
    return Finding(
        code=code, severity=severity, count=count, share=share, estimated=estimated, message=f"{message}.", remedy=remedy,
        examples=examples or [],
    )  # fmt: skip


def part_of(count: int, total: int) -> str:
    """Return "12 of 1,000 (1.2%)"."""
    share = count / max(1, total)
    percent = "less than 0.1%" if 0 < share < 0.001 else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
    return f"{count:,} of {total:,} ({percent})"
