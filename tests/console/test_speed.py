"""The console is fast enough. Other processes delay some tries: the best of several counts, and the CPU time of the page."""

import pytest
from playwright.sync_api import expect

from tests.console.console import Console, Recorder
from tests.console.records import Records
from tests.console.speed import View, draws, first_view, frames

pytestmark = pytest.mark.timeout(300)

TRIES = 6


def test_the_first_view_is_shown_within_a_second_with_little_javascript(recorder: Recorder, records: Records) -> None:
    views: list[View] = []
    while len(views) < TRIES and min((view.ms for view in views), default=1000) >= 1000:
        views.append(first_view(recorder.open(records.url).page))  # in a context without a cache

    assert min(view.ms for view in views) < 1000
    assert 20 < min(view.cpu_ms for view in views) < 400
    assert 50_000 < views[0].javascript < 200_000


def test_long_lists_scroll_smoothly_in_few_rows(console: Console) -> None:
    times, cpu_ms = frames(console.page, "job_02000")

    assert console.page.get_by_role("row").count() < 120
    assert sorted(times)[len(times) // 2] < 50
    assert cpu_ms < 25
    expect(console.page.get_by_text("job_02000").first).to_be_visible()


def test_eight_series_of_100_000_points_are_drawn_in_a_tenth_of_a_second(console: Console) -> None:
    assert min(draws(console.page)[1:]) < 100
