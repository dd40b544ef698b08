"""Cost of registering a data set: `python bench/registration.py FOLDER [--sets emoji caltech101 openclipart] [--no-teacher]`.

FOLDER has a folder for each data set, with `train-*.tar`. Each set is registered in a process of its own, with its tasks in that
process and one thread, without and with the emoji teacher; the first one also with its shards listed four times. Prints samples a
CPU-second, the share of CPU time of each check, and the largest memory; the results are written to
`bench/results/registration.json`.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from hardware import cpu
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "registration.json"
TEACHER = {"model": f"local-dir:{HERE.parent / 'examples' / 'emoji' / 'teachers' / 'vit'}"}
CAPTION_KEYS = {"emoji": "json.captions", "caltech101": "txt", "openclipart": "json.captions"}
TASKS = "tinyclip_workers.datasets."
CHECKS = {
    "examine_image": ("examination", "decode and hash images"),
    "CaptionCounter.add": ("counts", "captions"),
    "CaptionCounter.finish": ("counts", "languages of a sample"),
    "encode_sample": ("registration", "teacher's pairs"),
    "build_report": ("registration", "compare samples, write the report"),
}
"""Functions whose CPU time is measured, by name: their module, and what they do. What is left reads, indexes and writes."""
LISTED = 4
REST = "read, hash and index shards"


class CpuClock:
    """CPU seconds by check. A check within another one counts for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def measure(self, module: Any, name: str, check: str) -> None:
        """Add the CPU time of every call of a function or method to a check."""
        owner_name, _, method = name.rpartition(".")
        owner = getattr(module, owner_name) if owner_name else module
        call = getattr(owner, method)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self._inner.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                taken = time.process_time() - start
                self.seconds[check] += taken - self._inner.pop()
                self._inner[-1] += taken

        setattr(owner, method, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(CAPTION_KEYS), choices=list(CAPTION_KEYS))
    parser.add_argument("--no-teacher", action="store_true", help="only without a teacher")
    arguments = parser.parse_args()
    results = []
    runs = [(name, teacher, 1) for name in arguments.sets for teacher in ((False,) if arguments.no_teacher else (False, True))]
    for name, teacher, times in [*runs, (arguments.sets[0], False, LISTED)]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(register, (str(arguments.folder.absolute() / name), name, teacher, times)))
    RESULTS.write_text(json.dumps({"cpu": cpu(), "results": results}, indent=1) + "\n")
    show(results)


def register(folder: str, name: str, teacher: bool, times: int) -> dict[str, Any]:
    """Register a set, whose shards are listed `times` times, in this process; return its measurements."""
    import torch
    from tinyclip.artifacts.documents import DatasetRequest
    from tinyclip.artifacts.paths import dataset_events, dataset_report, dataset_request, dataset_version
    from tinyclip.artifacts.store import ArtifactsStore
    from tinyclip.schemas.datasets import DatasetPut, DatasetReport
    from tinyclip_workers.datasets import registration, teacher_sample
    from tinyclip_workers.datasets.captions import counts
    from tinyclip_workers.datasets.images import task_images
    from tinyclip_workers.datasets.scan import examination, tasks
    from tinyclip_workers.runtime.events import EventWriter

    torch.set_num_threads(1)
    for module in (tasks, task_images, teacher_sample):
        module.run_tasks = _run_here  # type: ignore[assignment]
    modules, clock = {"examination": examination, "counts": counts, "registration": registration}, CpuClock()
    for function, (module_name, check) in CHECKS.items():
        clock.measure(modules[module_name], function, check)
    source = {"shards": [f"{folder}/train-*.tar"] * times, "caption_key": CAPTION_KEYS[name]}
    put = DatasetPut.model_validate({"source": source, "teacher": TEACHER if teacher else None})
    with tempfile.TemporaryDirectory() as root:
        store, request = ArtifactsStore(root), DatasetRequest(name="bench", version=1, attempt=1, request=put)
        store.write_bytes(dataset_request("bench"), request.model_dump_json().encode())
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        registration.register_version(store, request, EventWriter(store, dataset_events("bench", 1, 1), 1))
        total = time.process_time() - started
        report = DatasetReport.model_validate_json(store.read_bytes(dataset_report(dataset_version("bench", 1))))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {**clock.seconds, REST: total - sum(clock.seconds.values())}
    return {
        "set": name, "teacher": teacher, "listed": times, "samples": report.samples, "cpu_seconds": round(total, 2),
        "samples_per_cpu_second": round(report.samples / total), "peak_mb": peak >> 10, "peak_mb_before": before >> 10,
        "shares": {check: round(taken / total, 3) for check, taken in seconds.items()},
        "findings": {finding.code: finding.severity for finding in report.findings},
    }  # fmt: skip


def _run_here(task: Any, calls: Sequence[tuple[Any, ...]], **options: Any) -> Iterator[Any]:
    """Run tasks in this process, in the place of `run_tasks`."""
    from tinyclip_workers.runtime.ray_tasks import TaskStep

    for number, call in enumerate(calls):
        for done in task(*call):
            yield TaskStep(number, done)
        yield TaskStep(number, 0.0, finished=True)


def show(results: list[dict[str, Any]]) -> None:
    """Print a row for each registration."""
    checks = [check for _, check in CHECKS.values()] + [REST]
    table = Table(title="registration, one process and one thread")
    for column in ("set", "teacher", "samples", "CPU s", "samples / CPU s", "peak MB", *checks):
        table.add_column(column, justify="left" if column == "set" else "right")
    for each in results:
        numbers = (each["samples"], each["cpu_seconds"], each["samples_per_cpu_second"], each["peak_mb"])
        shares = (f"{each['shares'].get(check, 0):.0%}" for check in checks)
        table.add_row(each["set"], "yes" if each["teacher"] else "no", *map(str, numbers), *shares)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
