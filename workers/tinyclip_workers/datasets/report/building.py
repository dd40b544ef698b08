"""Build the report on a version."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from tinyclip.schemas.datasets import CaptionStatistics, DatasetPut, DatasetReport, Finding, ImageSizes

from tinyclip_workers.datasets.captions.joined_file import CountedCaptions
from tinyclip_workers.datasets.captions.languages import determine, shares
from tinyclip_workers.datasets.report.agreement import agreement_findings, measure
from tinyclip_workers.datasets.report.captions import caption_findings, joined_findings, language_findings
from tinyclip_workers.datasets.report.distinct import count_distinct
from tinyclip_workers.datasets.report.duplicates import duplicate_findings
from tinyclip_workers.datasets.report.imbalance import imbalance_findings
from tinyclip_workers.datasets.report.leakage import leakage_findings
from tinyclip_workers.datasets.report.numbers import mean, share_below, summary
from tinyclip_workers.datasets.report.rules import counted_findings, make_finding, part_of, severity_of
from tinyclip_workers.datasets.scan.merging import BrokenShard, Merged, Parts
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, Statistics, example
from tinyclip_workers.datasets.teacher_sample import EncodedPairs

DEFAULT_INPUT = 224
"""Side of most students' input."""
SMALLEST_LANGUAGE = 0.01
"""Share of captions below which a language is not listed."""
SMALL_SHARE = 0.1
"""Share of small images that is reported."""
_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, but for what the parts have."""

    merged: Merged
    lacking: list[int]
    """For each of the data set's languages the pairs without a caption in it."""
    joined: CountedCaptions | None
    task_images: pa.Table
    teacher: str
    """The teacher's name; "" without one."""
    pairs: EncodedPairs | None
    """Pairs that the teacher has encoded."""


def build_report(parts: Parts, request: DatasetPut, measured: Measured, teacher_size: int | None) -> DatasetReport:
    """Return the report, the most serious findings first. `teacher_size`: side of the teacher's input. Raises OSError."""
    statistics, merged = measured.merged.statistics, measured.merged
    distinct, languages = count_distinct(parts, statistics.captions), determine(statistics.languages)
    side = request.image_size or teacher_size
    findings = [
        *_broken(merged.broken, len(merged.shards)),
        *counted_findings(statistics, request.source),
        *caption_findings(request, statistics, distinct, languages),
        *joined_findings(measured.joined, statistics.usable),
        *language_findings(request.source.languages, measured.lacking, sum(shard.pairs for shard in merged.shards)),
        *_small(statistics, side),
        *imbalance_findings(parts, request.source, statistics.usable),
        *leakage_findings(parts, measured.task_images, request.tasks),
        *duplicate_findings(parts),
    ]
    agreement = None
    if measured.pairs is not None:
        agreement, similarities = measure(measured.pairs, measured.teacher)
        findings += agreement_findings(parts, measured.pairs, agreement, similarities, findings)
    return DatasetReport(
        samples=statistics.samples, usable=statistics.usable, findings=most_serious_first(findings),
        caption_stats=_captions(statistics, measured.joined, distinct.distinct, request.source.languages),
        image_sizes=_sizes(statistics, side or DEFAULT_INPUT), languages=shares(languages, SMALLEST_LANGUAGE),
        agreement=agreement,
    )  # fmt: skip


def most_serious_first(findings: list[Finding]) -> list[Finding]:
    """Sort findings by their severity, then by their share."""
    return sorted(findings, key=lambda finding: (_ORDER[finding.severity], -finding.share, finding.code))


def _broken(broken: list[BrokenShard], shards: int) -> list[Finding]:
    if not broken:
        return []
    examples = [example("", shard.url, f"{shard.samples:,} samples before: {shard.reason}") for shard in broken[:MAX_EXAMPLES]]
    message = f"{part_of(len(broken), shards)} shards cannot be read to their ends; the samples before are used"
    remedy = "Write or upload these shards again."
    severity = severity_of(len(broken) / shards, 0.0, 0.2 if shards > 4 else 2.0)
    return [make_finding("broken_shards", severity, len(broken), shards, message, remedy, examples)]


def _small(statistics: Statistics, image_size: int | None) -> list[Finding]:
    side = image_size or DEFAULT_INPUT
    share = share_below(statistics.short_sides, side)
    if share < SMALL_SHARE:
        return []
    count = round(share * sum(statistics.short_sides.values()))
    median = summary(statistics.short_sides, 50)["median"]
    message = f"{part_of(count, statistics.usable)} images have a shorter side of less than {side} pixels (median {median:.0f}), "
    message += "which are enlarged"
    remedy = "Use larger images, or a student with a smaller input"
    remedy += "." if image_size else "; give its image_size with the data set."
    severity = severity_of(share, 0.5 if image_size else 2.0, 2.0)
    return [make_finding("small_images", severity, count, statistics.usable, message, remedy)]


def _captions(
    statistics: Statistics, joined: CountedCaptions | None, distinct: int, languages: Sequence[str]
) -> CaptionStatistics:
    lengths = statistics.lengths + (joined.statistics.lengths if joined is not None else Counter())
    captions = statistics.captions + (joined.captions if joined is not None else 0)
    characters = {**summary(lengths, 95), "mean": round(mean(lengths), 1)}
    per_sample = round(captions / max(1, statistics.usable), 2)
    by_language = statistics.captions_by_language + (joined.languages if joined is not None else Counter())
    return CaptionStatistics(
        captions=captions, per_sample=per_sample, characters=characters, distinct=distinct,
        languages={language: by_language[language] for language in languages},
    )  # fmt: skip


def _sizes(statistics: Statistics, side: int) -> ImageSizes:
    width, height = (summary(values, 5, 50, 95) for values in (statistics.widths, statistics.heights))
    return ImageSizes(width=width, height=height, smaller_than_input=round(share_below(statistics.short_sides, side), 4))
