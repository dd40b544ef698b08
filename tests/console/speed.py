"""Measures of the console in a browser: the first view, a long list, long series. `bench/console.py` records them."""

import json
from typing import Any

from playwright.sync_api import Page, Route

from tests.console.records import CURVES_JOB

SERIES, POINTS, REDRAWS = 8, 100_000, 5

SHOWS_JOBS = "() => document.querySelector('main [role=table], main table, main h2') && (window.shownAt ??= performance.now())"
SCRIPT_BYTES = """
() => performance.getEntriesByType("resource").filter((each) => each.name.endsWith(".js"))
  .reduce((sum, each) => sum + each.encodedBodySize, 0)
"""
SCROLL = """
async ([last, limit_ms]) => {
  const area = document.querySelector("[aria-label='List of jobs']");
  const frames = [], began = performance.now();
  let before = began;
  while (!document.body.innerText.includes(last)) {
    area.scrollTop += 600;
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - before);
    before = performance.now();
    if (before - began > limit_ms) throw new Error("not reached: " + last);
  }
  return frames;
}
"""
DRAWS = "() => performance.getEntriesByName('chart').map((entry) => entry.duration)"

DRAWN = "(before) => performance.getEntriesByName('chart').length > before"


def first_view(page: Page) -> tuple[float, int]:
    """Open the list of jobs; return the milliseconds until it is shown, and the compressed bytes of JavaScript."""
    page.goto("/jobs")
    shown = page.wait_for_function(SHOWS_JOBS).json_value()
    page.wait_for_load_state("networkidle")
    return float(shown), int(page.evaluate(SCRIPT_BYTES))


def frames(page: Page, last: str, limit_s: float = 60) -> list[float]:
    """Scroll the list of jobs until an id is shown; return the milliseconds between frames."""
    page.goto("/jobs")
    page.wait_for_function(SHOWS_JOBS)
    times: list[float] = page.evaluate(SCROLL, [last, 1000 * limit_s])
    return times


def draws(page: Page) -> list[float]:
    """Overlay eight jobs with long series; return the milliseconds of each drawing, the first one and with another scale.

    The API reduces series to 10,000 points; what it would answer is replaced by all of them.
    """
    document: dict[str, Any] = page.request.get(f"/v1/jobs/{CURVES_JOB}").json()
    ids = [f"job_series_{number}" for number in range(SERIES)]

    def answer_job(route: Route) -> None:
        id = route.request.url.split("/v1/jobs/")[1].split("?")[0]
        route.fulfill(json=document | {"id": id, "name": id})

    def answer_metrics(route: Route) -> None:
        number = int(route.request.url.split("job_series_")[1].split("/")[0])
        route.fulfill(body=_series(number), content_type="application/json")

    page.route("**/v1/jobs/job_series_*", answer_job)
    page.route("**/v1/jobs/job_series_*/metrics*", answer_metrics)
    page.goto("/compare-jobs?series=loss&" + "&".join(f"ids={id}" for id in ids))
    page.wait_for_function(DRAWN, arg=0, timeout=120_000)
    page.wait_for_load_state("networkidle")
    for _ in range(REDRAWS):
        before = len(page.evaluate(DRAWS))
        page.get_by_role("switch", name="Logarithmic").press("Space")
        page.wait_for_function(DRAWN, arg=before, timeout=60_000)
    times: list[float] = page.evaluate(DRAWS)
    return times


def _series(number: int) -> str:
    """Return the answer for one job: a series with steps of its own, which have to be aligned with those of the others."""
    points = [
        {"stage": 0, "step": SERIES * step + number, "value": round(1 / (1 + step / 1000) + (step * 7919 % 1000) / 5000, 5)}
        for step in range(POINTS)
    ]
    return json.dumps({"series": {"loss": points}, "last": POINTS})
