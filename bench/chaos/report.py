"""Results: saved to `bench/results/chaos.json` after each case, shown in the terminal and in `docs/reliability.md`."""

import json
import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chaos.cases import CASES, Case
from bench.chaos.jobs import Outcome

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "chaos.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: written by python -m bench.chaos -->", "<!-- end of the table -->"
COLUMNS = ("what is done", "profile", "ended", "seconds (undisturbed)", "attempts", "group restarts", "steps again", "events", "")


@dataclass
class Row:
    """The result of a case on a profile; the fields are keys of `chaos.json`."""

    case: str
    profile: str
    date: str
    wrong: list[str]
    remark: str = ""
    ended: dict[str, Any] | None = None
    """The fields of `Outcome`."""
    undisturbed_seconds: float = 0.0
    """Seconds of the undisturbed run of the same spec, in the same sitting."""
    left_out: bool = False


class Report:
    """The results so far."""

    def __init__(self, seed: int, *, keep: bool, path: Path = RESULTS) -> None:
        """Begin a report; with `keep`, add to the saved rows. The undisturbed runs are repeated in each sitting."""
        self._path, self._console = path, Console(highlight=False, width=200)
        rows = json.loads(path.read_text())["rows"] if keep and path.exists() else []
        command = shlex.join(["python", "-m", "bench.chaos", *sys.argv[1:]])
        here = {"machine": _machine(), "seed": seed, "command": command}
        self._document: dict[str, Any] = {**here, "undisturbed": {}, "rows": rows}
        self.seed = seed
        self.failed = False

    def has(self, case: str, profile: str) -> bool:
        """Return whether the case has passed."""
        rows = (Row(**row) for row in self._document["rows"])
        return any((row.case, row.profile) == (case, profile) and not row.wrong and not row.left_out for row in rows)

    def undisturbed(self, spec: str) -> Outcome | None:
        found = self._document["undisturbed"].get(spec)
        return Outcome(**found) if found else None

    def keep_undisturbed(self, spec: str, ended: Outcome) -> None:
        self._document["undisturbed"][spec] = asdict(ended)
        self._save()
        self._console.print(f"undisturbed, {spec}: {ended.seconds:.0f} s, student {ended.student[:12]}")

    def begin(self, case: Case, profile: str) -> None:
        self._console.print(f"{datetime.now():%H:%M:%S} {profile}: {case.what}")

    def skip(self, case: Case, profile: str, why: str) -> None:
        self._add(Row(case.name, profile, _today(), [], remark=f"left out: {why}", left_out=True))

    def end(self, case: Case, profile: str, ended: Outcome | None, remark: str, wrong: list[str]) -> None:
        self.failed |= bool(wrong)
        usual = self.undisturbed(case.spec)
        assert usual is not None
        self._add(Row(case.name, profile, _today(), wrong, remark, asdict(ended) if ended else None, usual.seconds))
        verdict = "; ".join(wrong) if wrong else "the same student"
        seconds = f"{ended.seconds:.0f} s, " if ended else ""
        self._console.print(f"         {seconds}{verdict}; {remark}", style="red" if wrong else "green")

    def write(self) -> None:
        """Write the table to the terminal and to the page, if there are rows."""
        if not self._document["rows"]:
            return
        table = Table(*COLUMNS)
        for row in self._rows():
            table.add_row(*self._cells(row))
        self._console.print(table)
        lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        lines += [f"| {' | '.join(self._cells(row))} |" for row in self._rows()]
        dates = sorted({row.date for row in self._rows()})
        days = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
        where = f"{days}, {self._document['machine']}, `{self._document['command']}`, seed {self.seed}."
        page = PAGE.read_text()
        before, after = page[: page.index(BEGIN)], page[page.index(END) :]
        PAGE.write_text("\n".join([before + BEGIN, "", where, "", *lines, "", after]))

    def _rows(self) -> list[Row]:
        order = [case.name for case in CASES]
        rows = [Row(**row) for row in self._document["rows"]]
        return sorted(rows, key=lambda row: (order.index(row.case), row.profile != "SQLite", row.profile))

    def _cells(self, row: Row) -> list[str]:
        case = next(case for case in CASES if case.name == row.case and row.profile in case.profiles)
        if row.ended is None:
            return [case.what, row.profile, *[""] * 6, "; ".join([*row.wrong, row.remark])]
        ended = Outcome(**row.ended)
        seconds = f"{ended.seconds:.0f} ({row.undisturbed_seconds:.0f})"
        verdict = f"**{'; '.join(row.wrong)}**" if row.wrong else "same student"
        numbers = (ended.attempts, ended.restarts, ended.lost_steps, ended.events)
        return [case.what, row.profile, f"{ended.state}, {verdict}", seconds, *map(str, numbers), row.remark]

    def _add(self, row: Row) -> None:
        rows = [old for old in self._document["rows"] if (old["case"], old["profile"]) != (row.case, row.profile)]
        self._document["rows"] = [*rows, asdict(row)]
        self._save()

    def _save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._document, indent=1) + "\n")
        temporary.replace(self._path)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {(models or [platform.machine()])[0]}, {platform.system()} {platform.release()}"


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
