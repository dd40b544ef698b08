"""Kill processes under a search, and compare it with an undisturbed one, from the repository's root:

    python -m bench.chaos.searches [--seed 0] [--kills 10] [--profile two-nodes|embedded] [--trials 12]

A search of twelve tiny students runs twice. During the second run, processes are killed (`kill -9`) at random moments spread
over it: in turn the control plane, which is restarted at once, the driver of a trial, a training worker, and on `two-nodes` a
node with all of its processes, in whose place another one joins. Both must have the same trials, bit for bit, the same front and
the same recommended version, with one job a trial and no process left. Results are written to
`bench/results/search_chaos.json`. `two-nodes` needs PostgreSQL and root.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx

from bench.chaos.__main__ import isolated_environment
from bench.chaos.machine import kill, wait_until
from bench.chaos.profiles import Profile, embedded, two_nodes
from bench.chaos.search_outcome import SearchOutcome, differences_of, examine_search
from bench.chaos.search_runs import SEARCH_SECONDS, RunningSearch, TrialJob, search_request
from bench.hardware import cpu

RESULTS = Path(__file__).parents[1] / "results" / "search_chaos.json"
PROFILES = {"two-nodes": two_nodes, "embedded": embedded}
KINDS = {"two-nodes": ("server", "driver", "worker", "node"), "embedded": ("server", "driver", "worker")}
SHARE = 0.9
"""The part of a search, counted in trials that have started, in which the kills happen."""
LEFT_SECONDS = 300.0
"""Time in which the processes of ended trials exit."""
NODE_SECONDS = 5.0
"""Time until another node joins in the place of a killed one."""


@dataclass
class Kill:
    """A kill; the fields are keys of `search_chaos.json`."""

    kind: str
    planned: float
    """When it is to happen: so many trials have started, and a share of the usual time of a trial has passed since."""
    at: float
    """Seconds since the search was created."""
    jobs: dict[str, int]
    """The jobs whose drivers had started and which had not ended, with the steps up to their newest checkpoints."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills, and of the search")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--profile", choices=list(PROFILES), default="two-nodes")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--keep", action="store_true", help="do not repeat the undisturbed search of the saved results")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of the results")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that every started process is stopped
    with isolated_environment() as folder:
        os.environ.update(RAY_worker_niceness="0")  # what the search waits for comes before other programs
        request = search_request(folder / "inputs", trials=arguments.trials, seed=arguments.seed)
        saved = json.loads(arguments.out.read_text())["undisturbed"] if arguments.keep else None
        undisturbed = SearchOutcome.read(saved) if saved else run(arguments.profile, folder, request, lambda *_: [])[0]
        _write(arguments, undisturbed, None, [], undisturbed.wrong)
        kills = Killer(arguments.profile, arguments.kills, arguments.seed, undisturbed)
        disturbed, struck = run(arguments.profile, folder, request, kills.strike)
    wrong = [*undisturbed.wrong, *disturbed.wrong, *differences_of(disturbed, undisturbed)]
    _write(arguments, undisturbed, disturbed, struck, wrong)
    print(*(wrong or ["no difference"]), sep="\n")
    sys.exit(bool(wrong))


def run(
    name: str, folder: Path, request: dict[str, Any], disturb: Callable[[Profile, RunningSearch], list[Kill]]
) -> tuple[SearchOutcome, list[Kill]]:
    """Run a search on a new service, and return its outcome and the kills."""
    place = Path(tempfile.mkdtemp(prefix="", dir=folder))
    place.chmod(0o755)
    with PROFILES[name](place) as profile:
        begun = time.monotonic()
        search = RunningSearch(profile, request, folder / "inputs")
        kills = disturb(profile, search)
        shown = search.wait_for_end()
        outcome = examine_search(search, shown, time.monotonic() - begun)
        if kills:
            outcome.wrong += _left(profile)
        print(f"{outcome.search} {outcome.state} after {outcome.seconds:.0f} s: {outcome.reason}", flush=True)
        print(*search.story(), *outcome.wrong, sep="\n", flush=True)
        return outcome, kills


def planned_kills(kinds: Sequence[str], kills: int, trials: int, seed: int) -> list[tuple[str, float]]:
    """Return kinds of kills in turn, and the random moment of each, in trials that have started."""
    random = Random(seed)
    return [(kinds[index % len(kinds)], (index + random.random()) / kills * trials * SHARE) for index in range(kills)]


class Killer:
    """Kills processes at moments that a seed has chosen."""

    def __init__(self, profile: str, kills: int, seed: int, undisturbed: SearchOutcome) -> None:
        trials = len(undisturbed.trials)
        self._plan = planned_kills(KINDS[profile], kills, trials, seed)
        self._random = Random(f"{seed} of what there is")
        self._trial_seconds = undisturbed.seconds / trials

    def strike(self, profile: Profile, search: RunningSearch) -> list[Kill]:
        """Kill at each planned moment. Raises `RuntimeError` if the search ends before."""
        begun, kills = time.monotonic(), []
        for kind, planned in self._plan:
            _wait(search, lambda: len(search.jobs()) > int(planned), f"the start of trial {int(planned)}")  # noqa: B023
            time.sleep(planned % 1 * self._trial_seconds)
            kills.append(getattr(self, f"_kill_{kind}")(profile, search, planned, begun))
            print(f"killed: {kills[-1]}", flush=True)
        return kills

    def _kill_server(self, profile: Profile, search: RunningSearch, planned: float, begun: float) -> Kill:
        struck = _kill("server", search, planned, begun)
        profile.plane.kill()
        profile.plane.launch()
        return struck

    def _kill_driver(self, profile: Profile, search: RunningSearch, planned: float, begun: float) -> Kill:
        found: list[TrialJob] = []

        def has_driver() -> bool:
            found[:] = [job for job in search.running() if profile.drivers(job.id)]
            return bool(found)

        _wait(search, has_driver, "a driver")
        struck = _kill("driver", search, planned, begun)
        kill(profile.drivers(self._random.choice(found).id))
        return struck

    def _kill_worker(self, profile: Profile, search: RunningSearch, planned: float, begun: float) -> Kill:
        _wait(search, profile.workers, "a training worker")
        struck = _kill("worker", search, planned, begun)
        kill({self._random.choice(sorted(profile.workers()))})
        return struck

    def _kill_node(self, profile: Profile, search: RunningSearch, planned: float, begun: float) -> Kill:
        cluster = profile.cluster
        assert cluster is not None
        lost = next(node for node in profile.nodes if node.has_joined)
        added = next(node for node in profile.nodes if not node.has_joined)
        _wait(search, lambda: profile.workers() & lost.processes(), "a training worker on the node")
        struck = _kill("node", search, planned, begun)
        lost.kill()
        time.sleep(NODE_SECONDS)
        cluster.wait_for_loss(lost.address)
        added.join(cluster, cluster.folder.parent)
        return struck


def _kill(kind: str, search: RunningSearch, planned: float, begun: float) -> Kill:
    return Kill(kind, planned, time.monotonic() - begun, {job.id: job.steps_done() for job in search.running()})


def _wait(search: RunningSearch, condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds. Raises `RuntimeError` if the search ends before."""
    next_look = time.monotonic()

    def holds() -> bool:
        nonlocal next_look
        if condition():
            return True
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + 5
            shown = search.get_if_available()
            if shown is not None and shown.state.terminal:
                raise RuntimeError(f"the search {shown.state} before {what}: {shown.message}")
        return False

    wait_until(holds, what, SEARCH_SECONDS)


def _left(profile: Profile) -> list[str]:
    """Wait for the end of the trials' processes and of all jobs of Ray, and return what is left of them."""
    left: list[str] = []

    def none_left() -> bool:
        pids = profile.drivers() | profile.workers() | profile.controllers()
        left[:] = [*(f"process {pid} is left" for pid in sorted(pids)), *(f"Ray's job {id} is left" for id in _ray_jobs(profile))]
        return not left

    with contextlib.suppress(TimeoutError):
        wait_until(none_left, "the end of all processes", LEFT_SECONDS, every=1.0)
    return left


def _ray_jobs(profile: Profile) -> list[str]:
    """Return the jobs of Ray that have not ended."""
    plane, cluster = profile.plane, profile.cluster
    url, token = (cluster.url, cluster.token) if cluster is not None else (plane.cluster()["address"], plane.data / "ray-token")
    answer = httpx.get(
        f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token.read_text()}"}, timeout=60, trust_env=False
    ).raise_for_status()
    return [job["submission_id"] for job in answer.json() if job["status"] in ("PENDING", "RUNNING") and job["submission_id"]]


def _write(
    arguments: argparse.Namespace, undisturbed: SearchOutcome, disturbed: SearchOutcome | None, kills: list[Kill],
    wrong: list[str],
) -> None:
    results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores of {cpu()}",
        "command": "python -m bench.chaos.searches " + " ".join(
            f"--{name} {getattr(arguments, name)}" for name in ("seed", "kills", "profile", "trials")
        ),
        "wrong": wrong,
        "kills": [asdict(one) for one in kills],
        "undisturbed": asdict(undisturbed),
        "disturbed": asdict(disturbed) if disturbed is not None else None,
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
