"""Inject faults into the real service and compare the outcome of the job: `make chaos`, or from the repository's root

    python -m bench.chaos [--only NAME …] [--missing] [--on SQLite PostgreSQL] [--seed 0]

A case submits a small job, injects its fault during training, and compares the outcome with an undisturbed run of the same
spec: the same student bit for bit, a history without gaps, one model version, no process left. Results are written to
`bench/results/chaos.json` after each case and from there to the table of `docs/reliability.md`. `--only` repeats cases;
`--missing` continues after an interruption. PostgreSQL must be installed; the full disks and the two nodes need root.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from textwrap import shorten

from bench.chaos.cases import CASES, Case, CaseContext
from bench.chaos.jobs import Outcome, RunningJob, examine, spec_of, write_inputs
from bench.chaos.profiles import Profile, embedded, production, two_nodes
from bench.chaos.report import Report

PROFILES = {"SQLite": embedded, "PostgreSQL": production, "two nodes": two_nodes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({case.name for case in CASES}), help="run these cases again")
    parser.add_argument("--missing", action="store_true", help="skip cases that have passed")
    parser.add_argument("--on", nargs="+", choices=list(PROFILES), default=list(PROFILES), help="profiles to run on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the faults")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that every started process is stopped
    report = Report(arguments.seed, keep=bool(arguments.only or arguments.missing))
    try:
        with isolated_environment() as folder:
            spec_file = write_inputs(folder / "inputs")
            for name in arguments.on:
                wanted = [case for case in CASES if name in case.profiles and case.name in (arguments.only or [case.name])]
                if arguments.missing:
                    wanted = [case for case in wanted if not report.has(case.name, name)]
                run_cases(name, wanted, folder, spec_file, report)
    finally:
        report.write()
    sys.exit(report.failed)


def run_cases(name: str, cases: Sequence[Case], folder: Path, spec_file: Path, report: Report) -> None:
    """Run the cases of a profile on one service; after a case that fails, the next one gets a new service."""
    waiting = deque(case for case in cases if can_run(case, name, report))
    while waiting:
        service_folder = Path(tempfile.mkdtemp(prefix="", dir=folder))
        service_folder.chmod(0o755)
        with PROFILES[name](service_folder) as profile:
            while waiting and run_case(waiting.popleft(), profile, spec_file, report):
                pass


def can_run(case: Case, name: str, report: Report) -> bool:
    if case.needs_root and os.getuid() != 0:
        report.skip(case, name, "needs root, for a separate disk or network")
        return False
    return True


@contextlib.contextmanager
def isolated_environment() -> Iterator[Path]:
    """Yield a temporary folder, short for Ray's sockets, with the user's settings and home hidden."""
    for name in list(os.environ):
        if name.startswith(("TINYCLIP_", "RAY_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="tc-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        folder.chmod(0o755)  # PostgreSQL's user needs to enter it
        home = {f"XDG_{kind}_HOME": str(folder / "home" / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
        os.environ.update({"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **home})
        (folder / "home").mkdir()
        yield folder


def run_case(case: Case, profile: Profile, spec_file: Path, report: Report) -> bool:
    """Run a case, report it as a row, and return whether it passed."""
    undisturbed = report.undisturbed(case.spec) or _undisturbed(case.spec, profile, spec_file, report)
    report.begin(case, profile.name)
    remark, ended, wrong = "", None, []
    try:
        profile.prepare(case.planes)
        name = f"{case.name}-{profile.name.lower()}".replace(" ", "-")
        job = RunningJob(profile.client, profile.artifacts, spec_of(spec_file, case.spec, name, **case.changes))
        random = Random(f"{report.seed} {name}")
        remark = case.inject(CaseContext(profile, job, random, undisturbed.seconds))
        ended = examine(job)
        wrong = [*ended.wrong, *differences(case, ended, undisturbed)]
        profile.prepare(1)
    except Exception as error:
        wrong.append(shorten(f"{type(error).__name__}: {error}", 300))
    report.end(case, profile.name, ended, remark, wrong)
    return not wrong


def _undisturbed(spec: str, profile: Profile, spec_file: Path, report: Report) -> Outcome:
    """Run a spec without a fault. Exits the benchmark if the job fails."""
    job = RunningJob(profile.client, profile.artifacts, spec_of(spec_file, spec, f"undisturbed-{spec}"))
    ended = examine(job)
    if ended.wrong or ended.state != "succeeded":
        raise SystemExit(f"the undisturbed job failed: {ended}")
    report.keep_undisturbed(spec, ended)
    return ended


def differences(case: Case, ended: Outcome, undisturbed: Outcome) -> Iterator[str]:
    if ended.state != "succeeded":
        yield f"it ended in state {ended.state}"
    if ended.student != undisturbed.student:
        yield f"its student is {ended.student[:12] or 'missing'}, not {undisturbed.student[:12]}"
    if ended.attempts not in case.attempts:
        yield f"it took {ended.attempts} attempts, not {' or '.join(map(str, case.attempts))}"


if __name__ == "__main__":
    main()
