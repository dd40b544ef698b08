"""Measure the console in a Chromium, on a quiet machine: `python -m bench.console [--runs 5]`.

The first view (time until it is shown, compressed JavaScript), frames while a list of 10,000 jobs is scrolled, and drawing 8
series of 100,000 points. The measures are those of `tests/console/speed.py`. Results are in `bench/results/console.json`.
"""

import argparse
import json
import platform
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import sync_playwright

from tests.console.console import Recorder
from tests.console.records import Records
from tests.console.speed import draws, first_view, frames

RESULTS = Path(__file__).parent / "results" / "console.json"
LAST_JOB = "job_09990"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, Records(Path(folder)) as records, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        recorder = Recorder(browser)
        views = [first_view(recorder.open(records.url).page) for _ in range(runs)]
        scrolled, frame_cpu_ms = frames(recorder.open(records.url).page, LAST_JOB, limit_s=120)
        drawn = [draws(recorder.open(records.url).page) for _ in range(runs)]
        version = browser.version
        recorder.close()
        browser.close()
    found = {
        "date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine(), "browser": version,
        "first_view_ms": round(median(view.ms for view in views)),
        "first_view_cpu_ms": round(median(view.cpu_ms for view in views)), "javascript_bytes": views[0].javascript,
        "frames": len(scrolled), "frame_ms": round(median(scrolled), 1),
        "frame_p95_ms": round(quantiles(scrolled, n=20)[-1], 1), "frame_max_ms": round(max(scrolled), 1),
        "frame_cpu_ms": round(frame_cpu_ms, 1), "first_draw_ms": round(median(each[0] for each in drawn), 1),
        "redraw_ms": round(median(ms for each in drawn for ms in each[1:]), 1),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
