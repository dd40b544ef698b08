"""Data sets, their versions and reports."""

from rich.console import Console

from tinyclip.cli.display.console import console, new_table, print_next_page, print_table
from tinyclip.cli.display.numbers import bars, count, duration, number, percent
from tinyclip.schemas import (
    AgreementReport,
    Dataset,
    DatasetReport,
    DatasetSample,
    DatasetVersion,
    Page,
    Reinforcement,
    ReinforcementCost,
)

HEADLINES = 3
"""Findings that are shown after a registration."""


def show_dataset(dataset: Dataset) -> None:
    versions = f", {dataset.name}@{dataset.latest} is the latest" if dataset.latest else ""
    done = f" {100 * dataset.progress:.0f}%" if not dataset.state.settled else ""
    message = f": {dataset.message}" if dataset.message else ""
    console().print(f"{dataset.name} {dataset.state}{done}{versions}{message}", markup=False)


def show_datasets(page: Page[Dataset]) -> None:
    out = console()
    numbers = ("latest", "versions", "done")
    table = new_table(out, "name", "state", "latest", "versions", "aliases", "done", "message", right=numbers)
    for dataset in page.items:
        aliases = ", ".join(f"{alias}={version}" for alias, version in dataset.aliases.items())
        latest, done = str(dataset.latest or ""), f"{100 * dataset.progress:.0f}%"
        table.add_row(dataset.name, dataset.state, latest, str(len(dataset.versions)), aliases, done, dataset.message)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def show_aliases(dataset: Dataset) -> None:
    aliases = ", ".join(f"{alias} is {dataset.name}@{version}" for alias, version in dataset.aliases.items())
    console().print(f"{dataset.name}: {aliases or 'no aliases'}", markup=False)


def show_version(version: DatasetVersion) -> None:
    out = console()
    table = new_table(out, f"{version.name}@{version.version}", "")
    source = version.source
    rows = {
        "aliases": ", ".join(version.aliases),
        "pairs for training": f"{version.pairs:,} of {version.samples:,} samples",
        "held out": f"{percent(version.holdout)}%" if version.holdout else "",
        "shards": f"{version.shards:,}, {count(version.bytes)}B" + (", compressed" if version.compressed else ""),
        "read from": source.shards if isinstance(source.shards, str) else ", ".join(source.shards),
        "captions": source.caption_key + (f" and {source.captions}" if source.captions else ""),
        "languages": ", ".join(source.languages),
        "distinct": source.distinct_key or "",
        "findings": ", ".join(f"{code} {count(samples)}" for code, samples in version.findings.items()),
        "digest": version.digest,
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    print_table(out, table)


def show_samples(page: Page[DatasetSample]) -> None:
    out = console()
    table = new_table(out, "number", "key", "pixels", "use", "captions", right=("number", "pixels"))
    for sample in page.items:
        pixels = f"{sample.width}x{sample.height}" if sample.width else ""
        text = sample.problem or sample.unread or " / ".join(sample.captions)
        table.add_row(str(sample.number), sample.key, pixels, sample.use, text)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def show_reinforcement(reinforcement: Reinforcement) -> None:
    teachers, version = " and ".join(reinforcement.teachers), f"{reinforcement.dataset}@{reinforcement.version}"
    done = f" {100 * reinforcement.progress:.0f}%" if not reinforcement.state.terminal else ""
    size = f", {count(reinforcement.views)} views, {count(reinforcement.bytes)}B" if reinforcement.views else ""
    message = f": {reinforcement.message}" if reinforcement.message else ""
    line = f"{reinforcement.id} {version} with {teachers} {reinforcement.state}{done}{size}{message}"
    console().print(line, markup=False)


def show_cost(cost: ReinforcementCost) -> None:
    out = console()
    size = f"{count(cost.views)} views and {count(cost.texts)} texts, {count(cost.bytes)}B"
    out.print(f"{size}, about {duration(cost.seconds)} of one core or GPU", markup=False)
    share = f"live teachers take about {percent(cost.teacher_share)}% of a step"
    out.print(f"{share}; the reinforcement takes as long as they do in {cost.epochs_to_pay:g} epochs", markup=False)


def show_reinforcements(page: Page[Reinforcement]) -> None:
    out = console()
    numbers = ("views of each", "views", "texts", "size", "done")
    table = new_table(out, "id", "teachers", "state", *numbers, "message", right=numbers)
    for each in page.items:
        sizes = (count(each.views), count(each.texts), f"{count(each.bytes)}B") if each.views else ("", "", "")
        done = f"{100 * each.progress:.0f}%"
        table.add_row(each.id, ", ".join(each.teachers), each.state, str(each.augmentations), *sizes, done, each.message)
    print_table(out, table)
    print_next_page(out, page.next_page_token)


def show_registered(version: DatasetVersion, report: DatasetReport, note: str = "") -> None:
    """Print a version and the headlines of its report. `note`: why the version is not a new one."""
    out = console()
    _print_size(out, version)
    if note:
        out.print(note, markup=False)
    for finding in report.findings[:HEADLINES]:
        out.print(f"{finding.severity}: {finding.message} {finding.remedy}", markup=False)
    if len(report.findings) > HEADLINES:
        more = len(report.findings) - HEADLINES
        out.print(f"{more} more: tinyclip-client datasets report {version.name}@{version.version}", style="dim", markup=False)


def show_report(version: DatasetVersion, report: DatasetReport) -> None:
    """Print findings with examples, statistics of captions and images, and the teacher's agreement with the pairs."""
    out = console()
    _print_size(out, version)
    _print_findings(out, report)
    _print_statistics(out, report)
    if report.agreement is not None:
        _print_agreement(out, report.agreement)


def _print_size(out: Console, version: DatasetVersion) -> None:
    size = f"{version.pairs:,} pairs for training of {version.samples:,} samples in {version.shards:,} shards"
    out.print(f"{version.name}@{version.version}: {size}, {count(version.bytes)}B", markup=False)


def _print_findings(out: Console, report: DatasetReport) -> None:
    if not report.findings:
        out.print("no findings")
        return
    table = new_table(out, "severity", "finding", "samples", "share", "what was found", "what to do", right=("samples", "share"))
    for finding in report.findings:
        about = "~" if finding.estimated else ""
        samples, share = f"{about}{finding.count:,}", f"{about}{percent(finding.share)}%"
        table.add_row(finding.severity, finding.code, samples, share, finding.message, finding.remedy)
    print_table(out, table)
    examples = new_table(out, "finding", "example", "shard", "detail")
    for finding in report.findings:
        for example in finding.examples:
            examples.add_row(finding.code, *(str(example.get(field) or "") for field in ("key", "shard", "detail")))
    if examples.row_count:
        print_table(out, examples)


def _print_statistics(out: Console, report: DatasetReport) -> None:
    captions, sizes = report.caption_stats, report.image_sizes
    if captions is not None:
        lengths = ", ".join(f"{name} {number(value)}" for name, value in captions.characters.items())
        distinct = f"{count(captions.captions)} captions, {count(captions.distinct)} distinct, {captions.per_sample:.3g} a sample"
        out.print(f"captions: {distinct}; characters: {lengths}", markup=False)
    if captions is not None and captions.languages:
        given = ", ".join(f"{language} {count(number)}" for language, number in captions.languages.items())
        out.print(f"captions by language: {given}", markup=False)
    if report.languages:
        shares = ", ".join(f"{language} {percent(share)}%" for language, share in report.languages.items())
        out.print(f"languages: {shares}", markup=False)
    if sizes is not None:
        for side, values in (("width", sizes.width), ("height", sizes.height)):
            out.print(f"{side} in pixels: {', '.join(f'{name} {number(value)}' for name, value in values.items())}", markup=False)
        out.print(f"smaller than the student's input: {percent(sizes.smaller_than_input)}%", markup=False)


def _print_agreement(out: Console, agreement: AgreementReport) -> None:
    means = f"true pairs {agreement.true_mean:.3f}, shuffled {agreement.shuffled_mean:.3f} on average"
    title = f"agreement of {agreement.teacher} on {agreement.pairs:,} pairs: AUC {agreement.auc:.3f}; {means}"
    out.print(title, markup=False)
    if not agreement.bins:
        return
    width = max(len(agreement.true_counts), len(agreement.shuffled_counts))
    low, high = f"{agreement.bins[0]:.2f}", f"{agreement.bins[-1]:.2f}"
    out.print(f"  true     {bars(agreement.true_counts)}".rstrip(), markup=False)
    out.print(f"  shuffled {bars(agreement.shuffled_counts)}".rstrip(), markup=False)
    out.print(f"           {low}{high.rjust(max(len(high) + 1, width - len(low)))}", markup=False)
