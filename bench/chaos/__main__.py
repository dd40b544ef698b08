"""Kills everything that TinyCLIP runs on, for real, and looks at what comes of it: `make chaos`, or from the repository's root

    python -m bench.chaos [--only NAME …] [--missing] [--on SQLite PostgreSQL] [--seed 0]

A case submits a small job, does its harm while that trains, and then holds the end against a run of the same spec that nobody
disturbed: the same student bit for bit, a history without gaps, one model version, no process left. Results go into
`bench/results/chaos.json` after each case and from there into the table of `docs/reliability.md`. `--only` does some again;
`--missing` goes on after an interruption. PostgreSQL must be installed; the full disks and the two nodes need root.
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

from bench.chaos.cases import CASES, Case, Scene
from bench.chaos.jobs import Ended, RunningJob, examine, spec_of, write_world
from bench.chaos.profiles import Profile, embedded, production, two_nodes
from bench.chaos.report import Report

PROFILES = {"SQLite": embedded, "PostgreSQL": production, "two nodes": two_nodes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted({case.name for case in CASES}), help="do these cases again")
    parser.add_argument("--missing", action="store_true", help="leave out what has a good result already")
    parser.add_argument("--on", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that all we have started is ended
    report = Report(arguments.seed, keep=bool(arguments.only or arguments.missing))
    try:
        with private_surroundings() as folder:
            spec_file = write_world(folder / "world")
            for name in arguments.on:
                wanted = [case for case in CASES if name in case.profiles and case.name in (arguments.only or [case.name])]
                if arguments.missing:
                    wanted = [case for case in wanted if not report.has(case.name, name)]
                run_cases(name, wanted, folder, spec_file, report)
    finally:
        report.write()
    sys.exit(report.failed)


def run_cases(name: str, cases: Sequence[Case], folder: Path, spec_file: Path, report: Report) -> None:
    """One service for all cases of a profile; after one that went wrong, the next case gets a new one."""
    waiting = deque(case for case in cases if may_run(case, name, report))
    while waiting:
        place = Path(tempfile.mkdtemp(prefix="", dir=folder))
        place.chmod(0o755)
        with PROFILES[name](place) as profile:
            while waiting and run_case(waiting.popleft(), profile, spec_file, report):
                pass


def may_run(case: Case, name: str, report: Report) -> bool:
    if case.needs_root and os.getuid() != 0:
        report.left_out(case, name, "needs root, for a disk or a network of its own")
        return False
    return True


@contextlib.contextmanager
def private_surroundings() -> Iterator[Path]:
    """A folder of our own, with a short path for Ray's sockets; no settings of the user's, and nothing in the user's home."""
    for name in list(os.environ):
        if name.startswith(("TINYCLIP_", "RAY_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="tc-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        folder.chmod(0o755)  # PostgreSQL's user passes through
        home = {f"XDG_{kind}_HOME": str(folder / "home" / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")}
        os.environ.update({"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **home})
        (folder / "home").mkdir()
        yield folder


def run_case(case: Case, profile: Profile, spec_file: Path, report: Report) -> bool:
    """One row of the table; whether all was as it should be. What went wrong is in the row."""
    undisturbed = report.undisturbed(case.spec) or _undisturbed(case.spec, profile, spec_file, report)
    report.begin(case, profile.name)
    remark, ended, wrong = "", None, []
    try:
        profile.prepare(case.planes)
        name = f"{case.name}-{profile.name.lower()}".replace(" ", "-")
        job = RunningJob(profile.client, profile.artifacts, spec_of(spec_file, case.spec, name, **case.changes))
        random = Random(f"{report.seed} {name}")
        remark = case.hurt(Scene(profile, job, random, undisturbed.seconds))
        ended = examine(job)
        wrong = [*ended.wrong, *differences(case, ended, undisturbed)]
        profile.prepare(1)
    except Exception as error:
        wrong.append(shorten(f"{type(error).__name__}: {error}", 300))
    report.end(case, profile.name, ended, remark, wrong)
    return not wrong


def _undisturbed(spec: str, profile: Profile, spec_file: Path, report: Report) -> Ended:
    """The same spec with nobody about. A fault here ends the whole run."""
    job = RunningJob(profile.client, profile.artifacts, spec_of(spec_file, spec, f"undisturbed-{spec}"))
    ended = examine(job)
    if ended.wrong or ended.state != "succeeded":
        raise SystemExit(f"the undisturbed job ended as {ended}")
    report.keep_undisturbed(spec, ended)
    return ended


def differences(case: Case, ended: Ended, undisturbed: Ended) -> Iterator[str]:
    if ended.state != "succeeded":
        yield f"it ended as {ended.state}"
    if ended.student != undisturbed.student:
        yield f"its student is {ended.student[:12] or 'missing'}, not {undisturbed.student[:12]}"
    if ended.attempts not in case.attempts:
        yield f"it took {ended.attempts} attempts, not {' or '.join(map(str, case.attempts))}"


if __name__ == "__main__":
    main()
