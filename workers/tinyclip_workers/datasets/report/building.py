"""Build the report on a version."""

import pyarrow as pa
from tinyclip.schemas.datasets import CaptionStatistics, DatasetPut, DatasetReport, Finding, ImageSizes

from tinyclip_workers.datasets.languages import determine, shares
from tinyclip_workers.datasets.merging import BrokenShard, Merged, Parts
from tinyclip_workers.datasets.report.captions import caption_findings
from tinyclip_workers.datasets.report.distinct import count_distinct
from tinyclip_workers.datasets.report.duplicates import duplicate_finding
from tinyclip_workers.datasets.report.imbalance import imbalance_findings
from tinyclip_workers.datasets.report.leakage import leakage_findings
from tinyclip_workers.datasets.report.numbers import mean, share_below, summary
from tinyclip_workers.datasets.report.rules import counted_findings, make_finding, part_of, severity_of
from tinyclip_workers.datasets.statistics import MAX_EXAMPLES, Statistics, example

DEFAULT_INPUT = 224
"""Side of most students' input."""
SMALLEST_LANGUAGE = 0.01
"""Share of captions below which a language is not listed."""
SMALL_SHARE = 0.1
"""Share of small images that is reported."""
_ORDER = {"error": 0, "warning": 1, "info": 2}


def build_report(parts: Parts, request: DatasetPut, merged: Merged, task_images: pa.Table) -> DatasetReport:
    """Return the report, the most serious findings first. Raises OSError."""
    statistics = merged.statistics
    distinct, languages = count_distinct(parts, statistics.captions), determine(statistics.languages)
    sizes = _sizes(statistics, request.image_size or DEFAULT_INPUT)
    findings = [
        *_broken(merged.broken, len(merged.shards)),
        *counted_findings(statistics, request.source),
        *caption_findings(request, statistics, distinct, languages),
        *_small(statistics, request.image_size),
        *imbalance_findings(parts, request.source, statistics.usable),
        *leakage_findings(parts, task_images, request.tasks),
    ]
    if (duplicates := duplicate_finding(parts)) is not None:
        findings.append(duplicates)
    return DatasetReport(
        samples=statistics.samples, usable=statistics.usable, findings=most_serious_first(findings),
        caption_stats=_captions(statistics, distinct.distinct), image_sizes=sizes, languages=shares(languages, SMALLEST_LANGUAGE),
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


def _captions(statistics: Statistics, distinct: int) -> CaptionStatistics:
    characters = {**summary(statistics.lengths, 95), "mean": round(mean(statistics.lengths), 1)}
    per_sample = round(statistics.captions / max(1, statistics.usable), 2)
    return CaptionStatistics(captions=statistics.captions, per_sample=per_sample, characters=characters, distinct=distinct)


def _sizes(statistics: Statistics, side: int) -> ImageSizes:
    width, height = (summary(values, 5, 50, 95) for values in (statistics.widths, statistics.heights))
    return ImageSizes(width=width, height=height, smaller_than_input=round(share_below(statistics.short_sides, side), 4))
