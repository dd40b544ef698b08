"""Results: saved to `bench/results/chaos.json` after each case, shown in the terminal and in `docs/reliability.md`."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.table import Table

from bench.chaos.case import Case
from bench.chaos.cases import CASES
from bench.chaos.outcome import Fault, Outcome

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "chaos.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: written by python -m bench.chaos -->", "<!-- end of the table -->"
COLUMNS = (
    "what is done", "profile", "passed", "jobs", "seconds (undisturbed)", "recovery: median / max s", "attempts",
    "group restarts", "steps again", "events", "",
)


@dataclass
class Row:
    """The result of a case on a profile; the fields are keys of `chaos.json`."""

    case: str = ""
    profile: str = ""
    date: str = ""
    command: str = ""
    commit: str = ""
    """What was tested, as `git describe` names it."""
    wrong: list[str] = field(default_factory=list)
    remark: str = ""
    wanted: int = 0
    """Number of faults to inject."""
    faults: list[Fault] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    """One for each job."""
    undisturbed_seconds: float = 0.0
    """Seconds of the undisturbed run of the same spec, in the same sitting."""
    left_out: bool = False
    stories: list[list[str]] = field(default_factory=list)
    """The histories of the jobs of a case that did not pass."""

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "Row":
        faults, outcomes = [Fault(**one) for one in saved["faults"]], [Outcome(**one) for one in saved["outcomes"]]
        return cls(**{**saved, "faults": faults, "outcomes": outcomes})

    @property
    def passed(self) -> int:
        """The faults that are known to have changed nothing: all of them or, if a check failed, none."""
        return 0 if self.wrong else len(self.faults)


class Report:
    """The results so far."""

    def __init__(
        self, seed: int, seeds: int, absence: float, *, keep: bool, path: Path = RESULTS, page: Path | None = PAGE
    ) -> None:
        """Begin a report; with `keep`, add to the saved rows, to which another process may add as well.

        The undisturbed runs are repeated in each process.
        """
        self._path, self._page, self._console = path, page, Console(highlight=False, width=200)
        self._lock = FileLock(path.with_suffix(".lock"))
        self._command, self._commit = shlex.join(["python", "-m", "bench.chaos", *sys.argv[1:]]), _commit()
        self._document: dict[str, Any] = {
            "machine": _machine(), "seed": seed, "seeds": seeds, "absence": absence, "undisturbed": {}, "rows": [],
        }
        if not keep:
            path.unlink(missing_ok=True)
        self._save()
        self.seed, self.seeds, self.absence = seed, seeds, absence
        self.failed = False

    def has(self, case: str, profile: str) -> bool:
        """Return whether the case has passed."""
        return any((row.case, row.profile) == (case, profile) and not row.wrong and not row.left_out for row in self._rows())

    def undisturbed(self, spec: str) -> Outcome | None:
        found = self._document["undisturbed"].get(spec)
        return Outcome(**found) if found else None

    def keep_undisturbed(self, spec: str, outcome: Outcome) -> None:
        self._document["undisturbed"][spec] = asdict(outcome)
        self._save()
        self.note(f"undisturbed, {spec}: {outcome.seconds:.0f} s, student {outcome.student[:12]}")

    def note(self, text: str) -> None:
        self._console.print(f"{datetime.now():%H:%M:%S} {text}")

    def begin(self, case: Case, profile: str) -> None:
        self.note(f"{profile}: {case.what}")

    def add(self, case: Case, profile: str, row: Row) -> None:
        """Save the result of a case, instead of an earlier one."""
        row.case, row.profile, row.date = case.name, profile, f"{datetime.now(UTC):%Y-%m-%d}"
        row.command, row.commit = self._command, self._commit
        self.failed |= bool(row.wrong)
        self._save(row)
        verdict = "; ".join(row.wrong) if row.wrong else row.remark if row.left_out else f"the same student; {row.remark}"
        style = "red" if row.wrong else "yellow" if row.left_out else "green"
        self._console.print(f"         {_seconds(row.outcomes)} s, {row.passed} of {row.wanted}: {verdict}", style=style)

    def write(self) -> None:
        """Write the table to the terminal and to the page, if there are rows."""
        self._save()
        rows = self._rows()
        if not rows:
            return
        table = Table(*COLUMNS)
        for row in rows:
            table.add_row(*_cells(row))
        self._console.print(table)
        if self._page is None:
            return
        lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
        page = self._page.read_text()
        before, after = page[: page.index(BEGIN)], page[page.index(END) :]
        self._page.write_text("\n".join([before + BEGIN, "", self._origin(rows), "", *lines, "", after]))

    def _origin(self, rows: Sequence[Row]) -> str:
        """Return when, where and how the rows were measured."""
        dates = sorted({row.date for row in rows})
        days = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
        commands, commits = (
            ", ".join(f"`{value}`" for value in dict.fromkeys(getattr(row, name) for row in rows) if value)
            for name in ("command", "commit")
        )
        how = f"seed {self.seed}, {self.seeds} seeds, absence {self.absence:g} s"
        return fill(f"{days}, {self._document['machine']}, {commands} at {commits}, {how}.", 120, break_on_hyphens=False)

    def _rows(self) -> list[Row]:
        order = [case.name for case in CASES]
        rows = [Row.read(row) for row in self._document["rows"] if row["case"] in order]
        return sorted(rows, key=lambda row: (order.index(row.case), row.profile != "SQLite", row.profile))

    def _saved_rows(self) -> list[dict[str, Any]]:
        return [row for row in json.loads(self._path.read_text())["rows"] if "faults" in row] if self._path.exists() else []

    def _save(self, *rows: Row) -> None:
        """Save the document with further rows, besides those that another process has added."""
        keys = [(row.case, row.profile) for row in rows]
        with self._lock:
            others = [old for old in self._saved_rows() if (old["case"], old["profile"]) not in keys]
            self._document["rows"] = [*others, *map(asdict, rows)]
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._document, indent=1) + "\n")
            temporary.replace(self._path)


def _cells(row: Row) -> list[str]:
    case = next(case for case in CASES if case.name == row.case and row.profile in case.profiles)
    if row.left_out:
        return [case.what, row.profile, "left out", *[""] * 7, row.remark]
    outcomes = row.outcomes
    numbers = [sum(values) for values in zip(*((o.attempts, o.restarts, o.lost_steps, o.events) for o in outcomes), strict=True)]
    times = [fault.recovery for fault in row.faults if fault.recovery is not None]
    return [
        case.what, row.profile, f"{row.passed} of {row.wanted}", str(len(outcomes)),
        f"{_seconds(outcomes)} ({row.undisturbed_seconds:.0f})", f"{median(times):.0f} / {max(times):.0f}" if times else "",
        *map(str, numbers or [""] * 4), f"**{'; '.join(row.wrong)}** {row.remark}".strip() if row.wrong else row.remark,
    ]


def _seconds(outcomes: Sequence[Outcome]) -> str:
    """Return the seconds of the jobs: of one, or the median and the maximum of several."""
    seconds = [outcome.seconds for outcome in outcomes]
    if len(seconds) < 2:
        return f"{seconds[0]:.0f}" if seconds else ""
    return f"{median(seconds):.0f} / {max(seconds):.0f}"


def _commit() -> str:
    """Return the present commit, with `-dirty` if files are changed other than those of the results."""
    described = _git("describe", "--always")
    written = (f":!{path.relative_to(ROOT)}" for path in (RESULTS.parent, PAGE))
    return f"{described}-dirty" if described and _git("status", "--porcelain", "--", ".", *written) else described


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kernel = platform.release().split("-")[0]
    return f"{os.cpu_count()} cores of {(models or [platform.machine()])[0]}, {platform.system()} {kernel}"
