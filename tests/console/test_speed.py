"""The console is fast enough. Limits of time hold on a quiet machine, so these tests are `long`: they run one at a time."""

import pytest
from playwright.sync_api import expect

from tests.console.console import Console, Recorder
from tests.console.records import Records
from tests.console.speed import draws, first_view, frames

pytestmark = pytest.mark.timeout(300)


def test_the_first_view_needs_little_javascript(console: Console) -> None:
    _, javascript = first_view(console.page)

    assert 50_000 < javascript < 250_000


@pytest.mark.long
def test_the_first_view_is_shown_within_a_second(recorder: Recorder, records: Records) -> None:
    views = [first_view(recorder.open(records.url).page) for _ in range(4)]  # each in a context without a cache

    assert min(ms for ms, _ in views) < 1000


@pytest.mark.long
def test_long_lists_scroll_smoothly_in_few_rows(console: Console) -> None:
    times = sorted(frames(console.page, "job_02000"))

    assert console.page.get_by_role("row").count() < 120
    assert times[len(times) // 2] < 50
    expect(console.page.get_by_text("job_02000").first).to_be_visible()


@pytest.mark.long
def test_eight_series_of_100_000_points_are_drawn_in_a_tenth_of_a_second(console: Console) -> None:
    assert min(draws(console.page)[1:]) < 100
