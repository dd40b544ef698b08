"""Take the pictures of the console in README and docs: `make screenshots`.

It runs the demo (some minutes on two cores) and opens the console in a Chromium. With the address of a service on which the demo
has been run, only the second:

    python docs/screenshots.py http://127.0.0.1:8321
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import FilePayload, Page, expect, sync_playwright
from tinyclip import Client

ROOT = Path(__file__).parents[1]
EMOJI = ROOT / "examples" / "emoji"
PICTURES = ROOT / "docs" / "console"
WIDTH, HEIGHT = 1280, 800
SHOWN_ROOT = "/home/you/tinyclip"

sys.path.insert(0, str(EMOJI))  # demo.py imports what lies beside it


def main(url: str | None) -> None:
    PICTURES.mkdir(exist_ok=True)
    if url is not None:
        take(url)
        return
    import demo
    from service import Service

    folder = Path(tempfile.mkdtemp(prefix="tinyclip-screenshots-"))
    with Service(folder) as service:
        demo.run(service.url)
        take(service.url)
    shutil.rmtree(folder)


def take(url: str) -> None:
    """Take all pictures, each of one view."""
    with Client(url) as client:
        job = next(job for job in client.jobs.list(name="emoji-half") if job.model is not None)
    assert job.model is not None
    model = f"{job.model.name}@{job.model.version}"
    with page_of(url) as page:
        picture(page, f"/jobs/{job.id}", "job")
        picture(page, "/new-job?template=half", "new-job")
        picture(page, f"/models/{job.model.name}?tab=layout", "layout")
        picture(page, f"/compare-models?models={model}&models=teacher&task=style-subgroup&show=differ", "compare", "Which images")
        picture(page, "/datasets/emoji?tab=report", "dataset")
        picture(page, "/playground?mode=search&deployment=emoji&index=emoji&query=an emoji of a boat", "search")
        classified(page)


@contextmanager
def page_of(url: str) -> Iterator[Page]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(base_url=url, viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        yield page
        browser.close()


def picture(page: Page, path: str, name: str, scroll_to: str | None = None) -> None:
    """Open a view and save it, from the control with the label `scroll_to` on."""
    page.goto(path)
    expect(page.locator("main h1").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    if scroll_to is not None:
        page.get_by_label(scroll_to).evaluate("element => { element.scrollIntoView(); window.scrollBy(0, -180); }")
    save(page, name)


def save(page: Page, name: str) -> None:
    """Save the view once its images are loaded, without the path of this clone."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1_500)
    page.evaluate(REPLACE, [str(ROOT), SHOWN_ROOT])
    page.screenshot(path=PICTURES / f"{name}.png")


def classified(page: Page) -> None:
    """Classify a drawing of the unseen style among all sub-groups."""
    from demo import CONCEPTS, VAL_SHARD, read_drawings

    labels = ", ".join((EMOJI / "data" / "subgroups.txt").read_text().splitlines())
    page.goto(f"/playground?mode=classify&deployment=emoji&labels={labels}&template=an emoji of a {{}}")
    drawings = read_drawings(VAL_SHARD).values()
    shown = [next(drawing for drawing in drawings if drawing.metadata["class_name"] == name) for name in CONCEPTS]
    page.get_by_test_id("image-file").set_input_files(
        [FilePayload(name=f"{each.metadata['class_name']}.png", mimeType="image/png", buffer=each.image) for each in shown]
    )
    save(page, "classify")


REPLACE = """
([from, to]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(from, to);
}
"""


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
