"""Take the pictures of the console in README and docs: `make screenshots`.

It runs the demo (some minutes on two cores) and opens the console in a Chromium. With the address of a service on which the demo
has been run, only the second:

    python docs/screenshots.py http://127.0.0.1:8321
"""

import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from tinyclip import Client

ROOT = Path(__file__).parents[1]
EMOJI = ROOT / "examples" / "emoji"
PICTURES = ROOT / "docs" / "console"
WIDTH, HEIGHT = 1280, 800

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
        job = next(client.jobs.list(name="emoji-half"))
    assert job.model is not None
    model = f"{job.model.name}@{job.model.version}"
    with page_of(url) as page:
        picture(page, f"/jobs/{job.id}", "job")
        picture(page, "/new-job?template=half", "new-job")
        picture(page, f"/models/{job.model.name}", "model")
        picture(page, f"/compare-models?models={model}&models=teacher&task=style-subgroup&show=only_second", "compare")
        picture(page, "/datasets/emoji?tab=report", "dataset")
        picture(page, "/playground?mode=search&deployment=emoji&index=emoji&query=an emoji of a boat", "search")
        classified(page)
        picture(page, "/service", "service")


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


def picture(page: Page, path: str, name: str) -> None:
    page.goto(path)
    save(page, name)


def save(page: Page, name: str) -> None:
    """Save the view once nothing in it is loading."""
    expect(page.locator("main h1").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1_000)  # images that come into view
    page.screenshot(path=PICTURES / f"{name}.png")


def classified(page: Page) -> None:
    """Classify the first drawing of the unseen style."""
    labels = ", ".join((EMOJI / "data" / "subgroups.txt").read_text().splitlines()[:40])
    page.goto(f"/playground?mode=classify&deployment=emoji&labels={labels}&template=an emoji of a {{}}")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(EMOJI / "data" / "val-000000.tar.gz") as shard:
        member = next(each for each in shard if each.name.endswith(".png"))
        shard.extract(member, folder, filter="data")
        page.set_input_files("input[type=file]", Path(folder) / member.name)
        save(page, "classify")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
