"""From a spec that is typed into the browser to a classified image and a search, on a real service."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect
from tinyclip.specfile import load_spec

from tests.console.console import Console, Recorder
from tests.e2e.world import World

pytestmark = [pytest.mark.timeout(600), pytest.mark.ray]

STEPS = 120
JOB_MS, DEPLOYED_MS = 240_000, 120_000


@pytest.fixture
def console(recorder: Recorder, world: World) -> Console:
    return recorder.open(world.service.url)


@pytest.fixture
def spec(world: World) -> str:
    """The text of a short job, as a user would paste it."""
    document = load_spec(world.spec_file)
    document["name"] = "browser"
    document["stages"] = [document["stages"][0] | {"train": {"steps": STEPS}}]
    return yaml.safe_dump(document, sort_keys=False)


@pytest.fixture
def picture(world: World) -> Path:
    from tests.workers.shapes_data import draw_shape

    file = world.folder / "blue-circle.png"
    draw_shape("blue", "circle", 32).save(file)
    return file


@pytest.fixture(autouse=True)
def cleared(world: World) -> Iterator[None]:
    """Remove what the story has deployed: other tests count what runs."""
    yield
    for deployment in world.client.deployments.list():
        if deployment.name == "browser":
            world.client.deployments.delete("browser")


def test_a_student_is_trained_deployed_and_asked_in_the_browser(console: Console, world: World, spec: str, picture: Path) -> None:
    page = console.page
    job = submitted(console, spec)
    followed(console, world, job)

    page.get_by_role("link", name="Open browser@1").click()
    console.button("Deploy").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox", name="Engine").click()
    page.get_by_role("option", name=re.compile("^torch( |$|,|:)")).first.click()
    dialog.get_by_role("button", name="Deploy").click()
    page.get_by_role("link", name="Open in the playground").click(timeout=DEPLOYED_MS)

    classified(console, world, picture)
    searched(console, world)
    assert world.client.jobs.get(job).state == "succeeded"
    assert world.client.deployments.get("browser").model == "browser@1"


def submitted(console: Console, spec: str) -> str:
    """Type the spec, read the plan, and submit it; return the job's id."""
    page = console.page
    console.go("/new-job")
    editor = page.get_by_role("textbox", name="Job spec")
    editor.fill(spec.replace("steps: 120", "stepz: 120"))
    expect(page.get_by_role("button", name=re.compile("Line .*stepz"))).to_be_visible(timeout=30_000)
    editor.fill(spec)
    expect(page.get_by_role("region", name="Plan").get_by_text("Up to date")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("region", name="Students")).to_contain_text("thinner")
    console.button("Submit job").click()
    page.wait_for_url(re.compile(r"/jobs/job_"), timeout=60_000)
    return page.url.split("/jobs/")[1].split("?")[0]


def followed(console: Console, world: World, job: str) -> None:
    """Watch the job to its end with an interruption of its streams; no point is missing then, and none is there twice."""
    page = console.page
    expect(page.get_by_text("running", exact=True).first).to_be_visible(timeout=JOB_MS)
    console.context.set_offline(True)
    expect(page.get_by_text("The server cannot be reached").first).to_be_visible(timeout=30_000)
    console.context.set_offline(False)
    expect(page.get_by_text("The server cannot be reached")).to_have_count(0, timeout=30_000)
    expect(page.get_by_text("succeeded", exact=True).first).to_be_visible(timeout=JOB_MS)

    points = world.client.jobs.metrics(job, names=["loss"]).series["loss"]
    console.button("Show Loss as a table").click()
    rows = page.get_by_role("table", name="Loss").get_by_role("row")
    expect(rows).to_have_count(len(points) + 1)
    steps = [row.get_by_role("rowheader").or_(row.get_by_role("cell").first).first.inner_text() for row in rows.all()[1:]]
    assert [int(step.replace(",", "")) for step in steps] == [point.step for point in points]


def classified(console: Console, world: World, picture: Path) -> None:
    """Classify an image; the scores are those of the deployment itself."""
    page = console.page
    page.get_by_role("textbox", name="Labels", exact=True).fill("red, green, blue")
    page.get_by_test_id("image-file").set_input_files(picture)
    scores = page.get_by_role("list", name="Scores of blue-circle.png by browser")
    expect(scores.get_by_role("listitem")).to_have_count(3)

    template = page.get_by_role("textbox", name="Templates").input_value()
    best, *_ = world.client.deployments.open("browser").classify(
        picture.read_bytes(), ["red", "green", "blue"], templates=[template or "{}"]
    )
    expect(scores.get_by_role("listitem").first).to_contain_text(best.label)
    expect(scores.get_by_role("listitem").first).to_contain_text(re.compile(f"{100 * best.score:.0f}|{100 * best.score:.1f}"))


def searched(console: Console, world: World) -> None:
    """Build an index, find images by text and by a hit, and see them."""
    page = console.page
    console.go("/service?tab=indexes")
    console.button("Create an index").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Name").fill("browser")
    dialog.get_by_role("combobox", name="Model").fill("browser")
    page.get_by_role("option", name=re.compile("browser@1")).click()
    dialog.get_by_role("textbox", name="Shards").fill(f"{world.folder}/val/*.tar")
    dialog.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Search browser").click(timeout=DEPLOYED_MS)
    page.get_by_role("textbox", name="Text").fill("a blue circle")
    page.get_by_role("button", name="Search", exact=True).click()

    hits = page.get_by_role("list", name="Hits of browser in browser").get_by_role("listitem")
    expect(hits.first).to_be_visible(timeout=30_000)
    expect(hits.first.locator("img")).to_have_attribute("src", re.compile("^blob:"))
    assert hits.first.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    first = world.client.deployments.open("browser").search("browser", "a blue circle").hits[0]
    expect(hits.first).to_contain_text(first.id)
    page.get_by_role("button", name=f"More like {first.id}").click()
    expect(hits.first).not_to_contain_text(first.id)
