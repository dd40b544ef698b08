"""Measures of the console in a browser: the first view, a long list, long series. `bench/console.py` records them."""

from typing import Any, NamedTuple

from playwright.sync_api import CDPSession, Page, Route

from tests.console.records import CURVES_JOB

SERIES, POINTS, REDRAWS = 8, 100_000, 3

SHOWS_JOBS = "() => document.querySelector('main tbody th[scope=row]') && (window.shownAt ??= performance.now())"
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


SERIES_IN_THE_PAGE = """
const fetchOthers = window.fetch;
window.fetch = async (input, init) => {
  const found = (input.url ?? String(input)).match(/job_series_(\\d+)[/]metrics/);
  if (found === null) return fetchOthers(input, init);
  const number = Number(found[1]), points = [];
  for (let step = 0; step < %(points)d; step++)
    points.push({stage: 0, step: %(series)d * step + number, value: 1 / (1 + step / 1000) + (step * 7919 %% 1000) / 5000});
  const body = JSON.stringify({series: {loss: points}, last: points.length});
  return new Response(body, {headers: {"Content-Type": "application/json"}});
};
"""


class View(NamedTuple):
    """What it took to show a view."""

    ms: float
    cpu_ms: float
    """CPU time of the page's main thread, which other processes do not change."""
    javascript: int
    """Compressed bytes."""


class Frames(NamedTuple):
    """Frames while a list was scrolled."""

    ms: list[float]
    """Between one frame and the next."""
    cpu_ms: float
    """CPU time of the page's main thread, for each frame."""


def first_view(page: Page) -> View:
    """Open the list of jobs, and wait until jobs are shown."""
    session = _cpu_session(page)
    page.goto("/jobs")
    shown = page.wait_for_function(SHOWS_JOBS).json_value()
    cpu_ms = _cpu_ms(session)
    page.wait_for_load_state("networkidle")
    return View(float(shown), cpu_ms, int(page.evaluate(SCRIPT_BYTES)))


def frames(page: Page, last: str, limit_s: float = 60) -> Frames:
    """Scroll the list of jobs until an id is shown."""
    session = _cpu_session(page)
    page.goto("/jobs")
    page.wait_for_function(SHOWS_JOBS)
    before = _cpu_ms(session)
    times: list[float] = page.evaluate(SCROLL, [last, 1000 * limit_s])
    return Frames(times, (_cpu_ms(session) - before) / len(times))


def draws(page: Page) -> list[float]:
    """Overlay eight jobs with long series; return the milliseconds of each drawing, the first one and with another scale.

    The API reduces series to 10,000 points; what it would answer is replaced by all of them. Each job has steps of its own, which
    have to be aligned with those of the others.
    """
    document: dict[str, Any] = page.request.get(f"/v1/jobs/{CURVES_JOB}").json()
    ids = [f"job_series_{number}" for number in range(SERIES)]

    def answer_job(route: Route) -> None:
        id = route.request.url.split("/v1/jobs/")[1].split("?")[0]
        route.fulfill(json=document | {"id": id, "name": id})

    page.route("**/v1/jobs/job_series_*", answer_job)
    page.add_init_script(SERIES_IN_THE_PAGE % {"points": POINTS, "series": SERIES})
    page.goto("/compare-jobs?series=loss&" + "&".join(f"ids={id}" for id in ids))
    page.wait_for_function(DRAWN, arg=0, timeout=120_000)
    page.wait_for_load_state("networkidle")
    for _ in range(REDRAWS):
        before = len(page.evaluate(DRAWS))
        page.get_by_role("switch", name="Logarithmic").press("Space")
        page.wait_for_function(DRAWN, arg=before, timeout=60_000)
    times: list[float] = page.evaluate(DRAWS)
    return times


def _cpu_session(page: Page) -> CDPSession:
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return session


def _cpu_ms(session: CDPSession) -> float:
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return 1000 * float(metrics["TaskDuration"])
