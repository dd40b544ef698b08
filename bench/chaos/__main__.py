"""Inject faults into the real service and compare the outcome of the jobs: `make chaos`, or from the repository's root

    python -m bench.chaos [--only NAME …] [--missing] [--on SQLite PostgreSQL …] [--seeds 20] [--seed 0] [--absence 40]

A case submits small jobs, injects its fault at a random moment for each seed, and compares the outcome with an undisturbed run of
the same spec: the same student bit for bit, a history without gaps, one model version, no process left. Results are written to
`bench/results/chaos.json` after each case and from there to the table of `docs/reliability.md`. `--only` repeats cases;
`--missing` continues after an interruption, or shares a run that another process has begun, with other profiles (`--on`).
PostgreSQL must be installed; the full disks and the nodes need root.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import shorten

from bench.chaos.case import Case, CaseContext
from bench.chaos.cases import CASES
from bench.chaos.jobs import RunningJob, spec_of, write_inputs
from bench.chaos.machine import time_limit
from bench.chaos.outcome import Outcome, examine, measure_recovery
from bench.chaos.profiles import Profile, drivers_on_nodes, embedded, object_store, production, two_nodes
from bench.chaos.report import PAGE, RESULTS, Report, Row

PROFILES = {
    "SQLite": embedded, "PostgreSQL": production, "S3": object_store, "two nodes": two_nodes,
    "drivers on nodes": drivers_on_nodes,
}
UNDISTURBED_SECONDS = 600.0
"""Time limit of an undisturbed job."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({case.name for case in CASES}), help="run these cases again")
    parser.add_argument("--missing", action="store_true", help="skip cases that have passed")
    parser.add_argument("--on", nargs="+", choices=list(PROFILES), default=list(PROFILES), help="profiles to run on")
    parser.add_argument("--seeds", type=int, default=20, help="faults of a case, each at a moment of its own")
    parser.add_argument("--seed", type=int, default=0, help="base of the seeds")
    parser.add_argument("--absence", type=float, default=40.0, help="seconds for which a lost node is gone")
    parser.add_argument("--trial", type=Path, help="write the results to this file instead, and no table to the documentation")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that every started process is stopped
    results, page = (arguments.trial, None) if arguments.trial else (RESULTS, PAGE)
    keep = bool(arguments.only or arguments.missing)
    report = Report(arguments.seed, arguments.seeds, arguments.absence, keep=keep, path=results, page=page)
    try:
        with isolated_environment() as folder:
            spec_file = write_inputs(folder / "inputs")
            for name in arguments.on:
                wanted = [
                    case for case in CASES if name in case.profiles
                    and (case.name in arguments.only if arguments.only else not case.on_request)
                ]  # fmt: skip
                if arguments.missing:
                    wanted = [case for case in wanted if not report.has(case.name, name)]
                Sitting(name, folder, spec_file, report).run(wanted)
    finally:
        report.write()
    sys.exit(report.failed)


@contextlib.contextmanager
def isolated_environment() -> Iterator[Path]:
    """Yield a temporary folder, short for Ray's sockets, with the user's settings and home hidden."""
    for name in list(os.environ):
        if name.startswith(("TINYCLIP_", "RAY_", "AWS_", "FSSPEC_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="tc-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        folder.chmod(0o755)  # PostgreSQL's user needs to enter it
        home = {f"XDG_{kind}_HOME": str(folder / "home" / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
        os.environ.update({"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **home})
        (folder / "home").mkdir()
        yield folder


class Sitting:
    """The cases of one profile."""

    def __init__(self, profile: str, folder: Path, spec_file: Path, report: Report) -> None:
        self._profile, self._folder, self._spec_file, self._report = profile, folder, spec_file, report

    def run(self, cases: list[Case]) -> None:
        """Run the cases on one service; after a case that fails, the next one gets a new service."""
        waiting = deque(case for case in cases if self._can_run(case))
        while waiting:
            first, started = waiting[0], False
            try:
                folder = Path(tempfile.mkdtemp(prefix="", dir=self._folder))
                folder.chmod(0o755)
                with PROFILES[self._profile](folder) as profile:
                    started = True
                    while waiting and self._run_case(waiting.popleft(), profile):
                        pass
            except Exception as error:
                if started:
                    self._report.note(f"stopping the profile {self._profile}: {_describe(error)}")
                else:
                    self._report.add(first, self._profile, Row(wrong=[f"the service did not start: {_describe(error)}"]))
                    waiting.popleft()

    def _can_run(self, case: Case) -> bool:
        if case.needs_root and os.getuid() != 0:
            self._report.add(case, self._profile, Row(remark="needs root, for a separate disk or network", left_out=True))
            return False
        return True

    def _run_case(self, case: Case, profile: Profile) -> bool:
        """Run a case, report it as a row, and return whether it passed."""
        row = Row()
        try:
            undisturbed = self._report.undisturbed(case.spec) or self._run_undisturbed(case.spec, profile)
            row.undisturbed_seconds = undisturbed.seconds
            self._report.begin(case, self._profile)
            spec = partial(spec_of, self._spec_file, case.spec)
            context = CaseContext(
                case, profile, spec, undisturbed, self._report.seeds, seed=self._report.seed, absence=self._report.absence
            )
            with time_limit(case.seconds, case.name):
                try:
                    profile.prepare(case.planes)
                    row.remark = case.inject(context)
                    self._judge(case, context, undisturbed, row)
                    profile.prepare(1)
                    if not row.wrong:
                        _delete(context.jobs)
                finally:
                    row.faults, row.wanted = context.faults, len(context.seeds)
                    if len(row.outcomes) < len(context.jobs) or row.wrong:
                        row.stories = [job.story() for job in context.jobs]
        except Exception as error:
            row.wrong.append(_describe(error))
        self._report.add(case, self._profile, row)
        return not row.wrong

    def _judge(self, case: Case, context: CaseContext, undisturbed: Outcome, row: Row) -> None:
        """Examine each job, and record the outcomes and the problems."""
        row.wrong += context.problems
        for job in context.jobs:
            outcome = examine(job)
            faults = [fault for fault in context.faults if fault.job == job.id]
            measure_recovery(faults, [line for attempt in range(1, outcome.attempts + 1) for line in job.reported(attempt)])
            outcome.wrong += differences(case, outcome, undisturbed, len(faults))
            row.outcomes.append(outcome)
            row.wrong += outcome.wrong

    def _run_undisturbed(self, spec: str, profile: Profile) -> Outcome:
        """Run a spec without a fault. Raises `RuntimeError` if the job fails."""
        with time_limit(UNDISTURBED_SECONDS, "the undisturbed job"):
            profile.prepare(1)
            job = RunningJob(profile.client, profile.files, spec_of(self._spec_file, spec, f"undisturbed-{spec}"))
            outcome = examine(job)
        if outcome.wrong or outcome.state != "succeeded":
            raise RuntimeError(f"the undisturbed job failed: {outcome}")
        self._report.keep_undisturbed(spec, outcome)
        return outcome


def _delete(jobs: list[RunningJob]) -> None:
    """Delete jobs, so that the small disk has room for those of the next case."""
    for job in jobs:
        job.client.jobs.delete(job.id)


def differences(case: Case, outcome: Outcome, undisturbed: Outcome, faults: int) -> Iterator[str]:
    """Yield the differences from an undisturbed run that the faults of a job do not explain."""
    if outcome.state != "succeeded":
        yield f"it ended in state {outcome.state}"
    if case.exact and outcome.student != undisturbed.student:
        yield f"its student is {outcome.student[:12] or 'missing'}, not {undisturbed.student[:12]}"
    fewest, most = (1 + int(share * faults) for share in case.attempts)
    if not fewest <= outcome.attempts <= most:
        yield f"it took {outcome.attempts} attempts, not {fewest if fewest == most else f'{fewest} to {most}'}"


def _describe(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 300)


if __name__ == "__main__":
    main()
