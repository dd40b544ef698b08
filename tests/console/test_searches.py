"""Searches in a browser: their list, one of them with its front and its trials, and the request of a new one."""

import pytest
from playwright.sync_api import expect

from tests.console.console import RULES_OF_COLORS, Console
from tests.console.records import HOSTILE
from tests.console.searches import PAUSED_SEARCH, RECOMMENDED, SEARCH, TRIALS

pytestmark = pytest.mark.timeout(300)
NARROW, WIDE = {"width": 400, "height": 800}, {"width": 1280, "height": 800}


def _looks_well(console: Console) -> None:
    """Check the view light, dark and narrow, with texts that are code."""
    assert console.violations() == []
    console.page.emulate_media(color_scheme="dark")
    assert console.violations(RULES_OF_COLORS) == []
    console.page.emulate_media(color_scheme="light")
    console.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    console.page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")  # plots follow with the next frame
    console.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    assert "owned" not in console.page.title()


def test_the_list_shows_searches_by_state(console: Console) -> None:
    console.go("/searches")

    row = console.page.get_by_role("row").filter(has_text="succeeded")
    expect(row).to_contain_text(f"{TRIALS} of at most 16")
    expect(row.get_by_role("link", name=f"smallest@{RECOMMENDED}")).to_be_visible()
    _looks_well(console)
    console.page.get_by_text("cancelled", exact=True).click()
    expect(console.page.get_by_role("heading", name="No search matches")).to_be_visible()
    assert "state=cancelled" in console.page.url


def test_a_search_shows_its_front_and_its_trials(console: Console) -> None:
    console.go(f"/searches/{SEARCH}")

    expect(console.page.get_by_text("at least 95 % of the teacher's, which is 60.8 %")).to_be_visible()
    expect(console.page.get_by_text(HOSTILE, exact=False).first).to_be_visible()
    plot = console.page.get_by_role("group", name="emoji: top-1 against Latency, openvino")
    expect(plot.get_by_role("link")).to_have_count(6)  # the finalists
    _looks_well(console)
    console.page.get_by_role("combobox", name="Against").click()
    console.page.get_by_role("option", name="File of the weights").click()
    plot = console.page.get_by_role("group", name="emoji: top-1 against File of the weights")
    expect(plot.get_by_role("link")).to_have_count(TRIALS - 1)  # one has failed
    console.page.get_by_role("link", name="Job of trial 0").click()
    console.page.get_by_role("link", name=f"{SEARCH}, trial 0").click()
    expect(console.page.get_by_role("heading", name="Trials", exact=True)).to_be_visible()


def test_the_buttons_are_those_that_the_state_allows(console: Console) -> None:
    console.go(f"/searches/{PAUSED_SEARCH}")

    expect(console.button("Resume")).to_be_visible()
    expect(console.button("Delete")).to_have_count(0)
    console.button("Cancel").click()
    expect(console.page.get_by_role("dialog")).to_contain_text("Model versions of those that have ended stay")


def test_a_request_is_planned_and_its_mistakes_are_at_their_line(console: Console) -> None:
    console.go("/new-search?template=limits")

    expect(console.page.get_by_text("Trials at most")).to_be_visible()
    expect(console.page.get_by_text("Up to date")).to_be_visible()
    _looks_well(console)
    console.page.get_by_role("textbox", name="Search request").press("Control+Home")
    console.page.keyboard.insert_text("constraints:\n  - bytes: {max: 9}\nvary: {optimizer.lr: [1.0e-3]}\nspec: ")
    console.page.keyboard.press("Control+Shift+End")
    console.page.keyboard.insert_text(
        "{name: a, teacher: {model: b}, data: {train: {shards: /data/a.tar}},"
        " evaluation: {tasks: [{name: pairs, kind: retrieval, shards: /data/b.tar}]},"
        " stages: [{name: c, student: {image: {layers: 1}}, train: {steps: 1}}]}"
    )
    mistake = console.page.get_by_role("button", name="Line 2")
    expect(mistake).to_contain_text("the smallest student has 100")


def test_a_search_is_begun_followed_and_cancelled(console: Console) -> None:
    console.go("/new-search?template=sweep")
    expect(console.page.get_by_text("Up to date")).to_be_visible()

    console.button("Begin search").click()
    expect(console.page.get_by_role("heading", name="emoji-half", level=1)).to_be_visible()
    expect(console.page.get_by_role("link", name="Job of trial 0")).to_be_visible()
    expect(console.page.get_by_role("region", name="Table of events").get_by_text("trial.begun")).to_be_visible()
    console.button("Cancel").click()
    console.button("Cancel the search").click()
    expect(console.page.get_by_text("search.cancelling")).to_be_visible()
