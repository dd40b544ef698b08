"""The console in a browser, as a user sees it."""

from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

# Requests that the tests let fail: the browser reports each of them.
EXPECTED = ("net::ERR_", "status of 401", "status of 403", "status of 404", "status of 409", "status of 422", "status of 503")


TIMEOUT_MS = 15_000


class Recorder:
    """Opens pages, and records the errors that they report."""

    def __init__(self, browser: Browser) -> None:
        self._browser, self._contexts = browser, list[BrowserContext]()
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
        page = context.new_page()
        page.on("console", self._record)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return Console(page, context)

    def close(self) -> None:
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

    def settle(self) -> None:
        expect(self.page.locator("main h1").first).to_be_visible()
        expect(self.page.get_by_role("status", name="Loading")).to_have_count(0)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    def violations(self) -> list[str]:
        """Return what axe finds wrong with the page."""
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]
