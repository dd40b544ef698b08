"""A Chromium, and services whose console it opens.

Without Chromium these tests are skipped, with how to get it.
"""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.console.console import Console, Recorder
from tests.console.records import Records

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Return the path of a Chromium; `TINYCLIP_TEST_CHROMIUM` names another one."""
    return os.environ.get("TINYCLIP_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium, elsewhere set TINYCLIP_TEST_CHROMIUM to its path")
    with sync_playwright() as playwright:
        # Root has no sandbox, and a container's shared memory is small.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def recorder(browser: Browser) -> Iterator[Recorder]:
    """Opens pages; at the end no page may have reported an error, or a violation of the Content-Security-Policy."""
    recorder = Recorder(browser)
    yield recorder
    recorder.close()
    assert recorder.errors == []


@pytest.fixture(scope="package")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    """A control plane without a cluster whose database has been filled: many jobs, hostile texts, long series."""
    with Records(tmp_path_factory.mktemp("records")) as records:
        yield records


@pytest.fixture(scope="package")
def context(browser: Browser, records: Records) -> Iterator[BrowserContext]:
    """A browser context whose cache has the console's files from its second page on."""
    recorder = Recorder(browser)
    yield recorder.open(records.url).context
    recorder.close()


@pytest.fixture
def console(recorder: Recorder, context: BrowserContext) -> Console:
    """The console of `records`, in a new tab."""
    return recorder.open_tab(context)
