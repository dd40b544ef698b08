"""What a browser has to withstand: hostile texts, many jobs, an outage, a token that may not do what is asked."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from tests.console.console import Console, Recorder
from tests.console.records import CURVES_JOB, HOSTILE, HOSTILE_JOB, Records

pytestmark = pytest.mark.timeout(300)

HOSTILE_PAGE = f"/jobs/{HOSTILE_JOB}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    """A control plane that requires tokens."""
    with Records(tmp_path_factory.mktemp("guarded"), auth="tokens", jobs=20) as records:
        yield records


class TestHostileTexts:
    @pytest.mark.parametrize("view", [f"/jobs?search={HOSTILE_JOB}", f"{HOSTILE_PAGE}?tab=log", f"{HOSTILE_PAGE}?tab=events"])
    def test_are_shown_as_they_are_written(self, console: Console, view: str) -> None:
        console.go(view)

        expect(console.page.get_by_text(HOSTILE, exact=False).first).to_be_visible()
        _nothing_happened(console.page)

    def test_marks_of_direction_are_made_visible(self, console: Console) -> None:
        console.go(f"{HOSTILE_PAGE}?tab=events")

        expect(console.page.get_by_text("exe⟨U+202E⟩gnp.sraey").first).to_be_visible()

    def test_in_an_address_have_no_effect(self, console: Console) -> None:
        console.go(f"/jobs?search={HOSTILE}&state={HOSTILE}&label={HOSTILE}")

        expect(console.page.get_by_role("heading", name="Jobs")).to_be_visible()
        assert console.page.title() == "Jobs – TinyCLIP"
        _nothing_happened(console.page)

    def test_lines_of_10_kb_do_not_widen_the_page(self, console: Console) -> None:
        console.go(f"{HOSTILE_PAGE}?tab=log")

        expect(console.page.get_by_text("xxxxxxxxxx").first).to_be_attached()
        assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


class TestLog:
    def test_a_search_finds_lines_far_behind_those_that_are_shown(self, console: Console) -> None:
        console.go(f"{HOSTILE_PAGE}?tab=log")

        console.page.get_by_role("searchbox", name="Search the log").fill("step 7 loss")

        expect(console.page.get_by_text("step 7 loss 0.1429")).to_be_visible()


class TestJobs:
    def test_a_filter_is_part_of_the_address(self, console: Console) -> None:
        console.go("/jobs")

        console.page.get_by_role("searchbox", name="Search jobs").fill("sweep-7")
        expect(console.page.get_by_role("link", name="sweep-7", exact=True).first).to_be_visible()
        expect(console.page.get_by_role("link", name="curves", exact=True)).to_have_count(0)
        address = console.page.url
        console.page.reload()

        assert "search=sweep-7" in address
        expect(console.page.get_by_role("link", name="sweep-7", exact=True).first).to_be_visible()
        expect(console.page.get_by_role("link", name="curves", exact=True)).to_have_count(0)

    def test_times_are_local(self, recorder: Recorder, records: Records) -> None:
        console = recorder.open(records.url, timezone="Asia/Tokyo")
        console.go(f"/jobs/{CURVES_JOB}")

        hour = (datetime.now(UTC).hour + 9) % 24
        expect(console.page.locator(f"[title*=' {hour:02}:']").first).to_be_visible()


class TestOutage:
    def test_is_survived_without_a_reload(self, console: Console, records: Records) -> None:
        console.go("/jobs")
        console.page.evaluate("window.isTheSamePage = true")
        records.kill()
        try:
            expect(console.page.get_by_text("The server cannot be reached").first).to_be_visible(timeout=20_000)
            expect(console.page.get_by_role("link", name="curves", exact=True)).to_be_visible()  # what was shown stays
        finally:
            records.start()

        expect(console.page.get_by_text("The server cannot be reached")).to_have_count(0, timeout=20_000)
        expect(console.page.get_by_role("link", name="curves", exact=True)).to_be_visible()
        assert console.page.evaluate("window.isTheSamePage")


class TestTokens:
    def test_are_asked_for_kept_for_the_tab_and_forgotten(self, recorder: Recorder, guarded: Records) -> None:
        console = recorder.open(guarded.url)
        console.page.goto("/jobs")
        expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert console.violations() == []

        console.page.get_by_placeholder("tc_…").fill("tc_wrong")
        console.button("Sign in").click()
        expect(console.page.get_by_role("alert")).to_be_visible()
        console.page.get_by_placeholder("tc_…").fill(guarded.token("read"))
        console.button("Sign in").click()
        expect(console.page.get_by_role("link", name="curves", exact=True)).to_be_visible()

        assert console.context.cookies() == []
        assert console.page.evaluate("localStorage.length === 0 || !JSON.stringify(localStorage).includes('tc_')")
        console.button("Sign out").click()
        expect(console.page.get_by_role("heading", name="Sign in")).to_be_visible()

    def test_without_the_scope_offer_no_action(self, recorder: Recorder, guarded: Records) -> None:
        console = signed_in(recorder, guarded, guarded.token("read"))
        console.go(f"/jobs/{CURVES_JOB}")
        expect(console.page.get_by_role("heading", name="curves")).to_be_visible()
        expect(console.button("Delete")).to_have_count(0)

        console = signed_in(recorder, guarded, guarded.token("write"))
        console.go(f"/jobs/{CURVES_JOB}")
        expect(console.button("Delete")).to_be_visible()

    def test_without_the_scope_admin_see_why_they_see_no_tokens(self, recorder: Recorder, guarded: Records) -> None:
        console = signed_in(recorder, guarded, guarded.token("read"))
        console.go("/tokens")

        expect(console.page.get_by_text("admin").first).to_be_visible()
        expect(console.button("Create a token")).to_have_count(0)


def signed_in(recorder: Recorder, guarded: Records, token: str) -> Console:
    console = recorder.open(guarded.url)
    console.context.add_init_script(f"sessionStorage.setItem('tinyclip-token', '{token}')")
    return console


def _nothing_happened(page: Page) -> None:
    time.sleep(0.2)  # an image that fails to load would run its handler now
    assert "owned" not in page.title()
    assert page.locator("img[src='x']").count() == 0
