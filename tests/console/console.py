"""The console in a browser, as a user sees it."""

import re
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

# Requests that the tests let fail: the browser reports each of them.
EXPECTED = ("net::ERR_", "status of 401", "status of 403", "status of 404", "status of 409", "status of 422", "status of 503")

TIMEOUT_MS = 15_000
expect.set_options(timeout=TIMEOUT_MS)
MARK_TITLES = "document.querySelectorAll('main h1').forEach((title) => (title.dataset.left = ''))"
RULES_OF_COLORS = ["color-contrast", "link-in-text-block"]
"""The rules of axe, among those that are on, which depend on colours."""
RUN_AXE = "(options) => axe.run(options).then((results) => results.violations)"


class Recorder:
    """Opens pages, and records the errors that they report."""

    def __init__(self, browser: Browser) -> None:
        self._browser, self._contexts, self._pages = browser, list[BrowserContext](), list[Page]()
        self.errors: list[str] = []

    def open(
        self, url: str, *, scheme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 800, timezone: str = "UTC"
    ) -> "Console":
        context = self._browser.new_context(
            base_url=url, color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce",
            locale="en-GB", timezone_id=timezone,
        )
        self._contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        return self.open_tab(context)

    def open_tab(self, context: BrowserContext) -> "Console":
        """Open another tab of a context, which may have the console's files in its cache."""
        page = context.new_page()
        self._pages.append(page)
        page.on("console", self._record)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return Console(page, context)

    def close(self) -> None:
        for page in self._pages:
            page.close()
        for context in self._contexts:
            context.close()

    def _record(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(expected in message.text for expected in EXPECTED):
            self.errors.append(message.text)


class Console:
    """One tab."""

    def __init__(self, page: Page, context: BrowserContext) -> None:
        self.page, self.context = page, context

    def go(self, path: str) -> None:
        """Open an address of the console, and wait until the view shows its title and nothing that is loading."""
        self.page.goto(path)
        self.settle()

    def move(self, path: str) -> None:
        """Move to an address as a link does, without loading the page again; by way of another view, so that nothing remains."""
        both = (urlsplit(self.page.url).path, path)
        aside = next(each for each in ("/tokens", "/models", "/datasets") if not any(view.startswith(each) for view in both))
        for address in (aside, path):
            self.page.evaluate(MARK_TITLES)
            self.page.evaluate("(address) => history.pushState(null, '', address)", address)
            expect(self.page.locator("main h1:not([data-left])").first).to_be_visible()
        self.settle()

    def settle(self) -> None:
        expect(self.page.locator("main h1").first).to_be_visible()
        expect(self.page.get_by_label(re.compile("^(Loading|Asking)"))).to_have_count(0)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def violations(self, rules: Sequence[str] = ()) -> list[str]:
        """Return what axe finds wrong with the page, only by some rules if they are given."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE_SCRIPT)
        only = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
        found: list[dict[str, Any]] = self.page.evaluate(RUN_AXE, {"resultTypes": ["violations"], **only})
        return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]
