"""Every view with real content, light and dark, wide and narrow: it shows itself, and axe finds nothing wrong.

All are opened in one page, as by links: other tests load each view by its address.
"""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Request, ViewportSize, expect

from tests.console.console import RULES_OF_COLORS, Console, Recorder
from tests.e2e.world import Undisturbed, World

pytestmark = [pytest.mark.timeout(300), pytest.mark.ray]

VIEWS = {
    "jobs": "/jobs",
    "curves": "/jobs/{job}",
    "log": "/jobs/{job}?tab=log",
    "events": "/jobs/{job}?tab=events",
    "spec": "/jobs/{job}?tab=spec",
    "attempts": "/jobs/{job}?tab=attempts",
    "checkpoints": "/jobs/{job}?tab=checkpoints",
    "compared jobs": "/compare-jobs?ids={job}&ids={other}",
    "new job": "/new-job?from={job}",
    "models": "/models",
    "model": "/models/shapes?version={version}",
    "evaluation": "/models/shapes?version={version}&tab=evaluation",
    "layout": "/models/shapes?version={version}&tab=layout",
    "lineage": "/models/shapes?version={version}&tab=lineage",
    "files": "/models/shapes?version={version}&tab=files",
    "compared models": "/compare-models?models=shapes@{version}&models=teacher",
    "data sets": "/datasets",
    "report": "/datasets/viewed",
    "samples": "/datasets/viewed?tab=samples",
    "reinforcements": "/datasets/viewed?tab=reinforcements",
    "versions": "/datasets/viewed?tab=versions",
    "classify": "/playground?deployment=shapes&mode=classify",
    "search": "/playground?deployment=shapes&mode=search&index=viewed&query=a blue circle",
    "deployments": "/service",
    "indexes": "/service?tab=indexes",
    "cluster": "/service?tab=cluster",
    "health": "/service?tab=health",
    "deployment": "/service/deployments/shapes",
    "tokens": "/tokens",
    "no such view": "/nothing/here",
}


PHONE, DESKTOP = ViewportSize(width=400, height=800), ViewportSize(width=1280, height=800)


@pytest.fixture(scope="module")
def names(world: World, undisturbed: Undisturbed, deployment: str) -> dict[str, str]:
    """A job, another that never ran, a model, a data set, a deployment and an index."""
    assert undisturbed.job.model is not None
    version = undisturbed.job.model.version
    world.client.datasets.put("viewed", {"shards": f"{world.folder}/train/*.tar"}, holdout=0.1)
    world.client.indexes.put("viewed", f"shapes@{version}", f"{world.folder}/val/*.tar")
    world.client.datasets.wait("viewed", timeout=120)
    world.client.indexes.wait("viewed", timeout=120)
    other = world.client.jobs.clone(undisturbed.job.id, {"name": "other"})
    world.client.jobs.cancel(other.id)
    world.client.jobs.wait(other.id)
    return {"job": undisturbed.job.id, "other": other.id, "version": str(version)}


@pytest.fixture(scope="module")
def opened(world: World, names: dict[str, str], browser: Browser) -> Iterator[tuple[Recorder, Console]]:
    recorder = Recorder(browser)
    console = recorder.open(world.service.url)
    console.go("/jobs")
    yield recorder, console
    recorder.close()


@pytest.mark.parametrize("view", VIEWS)
def test_is_accessible_light_and_dark(view: str, opened: tuple[Recorder, Console], names: dict[str, str]) -> None:
    recorder, console = opened
    console.page.emulate_media(color_scheme="light")
    console.move(VIEWS[view].format(**names))

    expect(console.page.get_by_role("alert").filter(has_text="Internal Server Error")).to_have_count(0)
    assert console.violations() == []
    console.page.emulate_media(color_scheme="dark")
    assert console.violations(RULES_OF_COLORS) == []  # the elements are the same, and so are the findings of other rules
    assert recorder.errors == []


@pytest.mark.parametrize("view", ["jobs", "curves", "new job", "models", "report", "search", "deployments"])
def test_fits_a_phone(view: str, opened: tuple[Recorder, Console], names: dict[str, str]) -> None:
    recorder, console = opened
    console.page.set_viewport_size(PHONE)
    console.move(VIEWS[view].format(**names))

    assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    console.page.set_viewport_size(DESKTOP)
    assert recorder.errors == []


class TestReference:
    def test_swagger_ui_lists_the_routes(self, recorder: Recorder, world: World) -> None:
        page = recorder.open(world.service.url).page
        page.goto("/docs")

        page.get_by_role("button", name="Expand operation").first.click()
        expect(page.get_by_text("/livez").first).to_be_visible()

    def test_redoc_lists_the_routes(self, recorder: Recorder, world: World) -> None:
        page = recorder.open(world.service.url).page
        page.goto("/redoc")

        expect(page.get_by_text("Report that the process answers requests.").first).to_be_visible()


def test_the_keyboard_reaches_the_content_and_every_view(recorder: Recorder, world: World) -> None:
    console = recorder.open(world.service.url)
    console.go("/jobs")

    console.page.keyboard.press("Tab")
    expect(console.page.get_by_text("Skip to the content")).to_be_focused()
    for _ in range(30):
        console.page.keyboard.press("Tab")
        if console.page.evaluate("document.activeElement.textContent") == "Models":
            break
    console.page.keyboard.press("Enter")

    expect(console.page.get_by_role("heading", name="Models", level=1)).to_be_visible()


def test_deploying_under_the_name_of_a_deployment_changes_its_model_alone(
    recorder: Recorder, world: World, names: dict[str, str]
) -> None:
    present = world.client.deployments.get("shapes")
    console = recorder.open(world.service.url)
    console.go(f"/models/shapes?version={names['version']}&deploy=1")
    console.page.route("**/v1/deployments/shapes", lambda route: route.abort() if _is_put(route.request) else route.continue_())
    dialog = console.page.get_by_role("dialog")

    expect(dialog.get_by_text("keep its engine, replicas and other settings")).to_be_visible()
    with console.page.expect_request(_is_put) as sent:
        dialog.get_by_role("button", name="Change the deployment").click()

    settings = present.model_dump(mode="json", include={"engine", "replicas", "models", "resident", "canary"})
    assert sent.value.post_data_json == {**settings, "model": f"shapes@{names['version']}"}
    expect(dialog.get_by_role("alert").first).to_be_visible()


def _is_put(request: Request) -> bool:
    return request.method == "PUT"
