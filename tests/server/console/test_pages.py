"""The console's pages and files: what is served where, to whom, and with which headers."""

import gzip
import re

import pytest
from tinyclip.schemas import Scope
from tinyclip_server.console import files
from tinyclip_server.console.files import built_names, read_built
from tinyclip_server.console.pages import POLICY, is_console

from tests.server.guarded import bearer, guarded, token
from tests.server.service import Service

__all__ = ["guarded"]

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class TestPages:
    async def test_the_address_of_a_view_answers_with_the_console(self, service: Service) -> None:
        home = await service.http.get("/")
        view = await service.http.get("/jobs/job_1?tab=log", headers=HTML)

        assert home.status_code == view.status_code == 200
        assert home.text == view.text
        assert '<div id="root">' in home.text

    async def test_pages_are_checked_again_at_each_visit(self, service: Service) -> None:
        first = await service.http.get("/")
        again = await service.http.get("/", headers={"If-None-Match": first.headers["etag"]})

        assert first.headers["cache-control"] == "no-cache"
        assert (again.status_code, again.content) == (304, b"")

    async def test_a_request_that_is_not_for_a_page_gets_a_problem_document(self, service: Service) -> None:
        response = await service.http.get("/nothing.json", headers={"Accept": "application/json"})

        assert (response.status_code, response.json()["code"]) == (404, "no_route")
        assert response.headers["x-request-id"]

    @pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/jobs/job_1/nothing", "/metrics/x", "/livez/x"])
    async def test_there_is_no_page_below_the_api(self, service: Service, path: str) -> None:
        response = await service.http.get(path, headers=HTML)

        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"

    async def test_only_reading_methods_are_answered(self, service: Service) -> None:
        assert (await service.http.head("/")).status_code == 200
        assert (await service.http.post("/", headers=HTML)).status_code in (404, 405)

    async def test_an_installation_without_the_build_says_what_to_do(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "built_names", frozenset)
        read_built.cache_clear()
        try:
            response = await service.http.get("/")
        finally:
            read_built.cache_clear()

        assert response.status_code == 404
        assert "make console" in response.json()["detail"]


class TestPolicy:
    @pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/models"])
    async def test_pages_run_scripts_of_this_server_only(self, service: Service, path: str) -> None:
        response = await service.http.get(path, headers=HTML)

        assert response.headers["content-security-policy"] == POLICY
        assert "script-src 'self';" in POLICY
        assert "connect-src 'self';" in POLICY
        assert response.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("name", ["index.html", "docs.html", "redoc.html"])
    def test_pages_hold_no_inline_script_and_name_no_other_host(self, name: str) -> None:
        page = (files.BUILT / name).read_text()

        assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
        assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page) == []
        assert re.findall(r"\son\w+=", page) == []


class TestAssets:
    async def test_files_with_a_hash_in_their_name_are_kept_by_the_browser(self, service: Service) -> None:
        name = next(name for name in sorted(built_names()) if name.endswith(".js"))

        response = await service.http.get(f"/{name}", headers={"Accept-Encoding": "gzip"})

        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["content-type"].startswith("text/javascript")
        assert response.content == (files.BUILT / name).read_bytes()

    async def test_a_client_without_gzip_gets_the_plain_file(self, service: Service) -> None:
        name = next(name for name in sorted(built_names()) if name.endswith(".css"))

        response = await service.http.get(f"/{name}", headers={"Accept-Encoding": "identity"})

        assert "content-encoding" not in response.headers
        assert response.content == (files.BUILT / name).read_bytes()

    @pytest.mark.parametrize(
        "path", ["/assets/nothing.js", "/assets/../pages.py", "/assets/%2e%2e/index.html", "/assets/", "/assets//etc/passwd"]
    )
    async def test_no_other_file_is_served(self, service: Service, path: str) -> None:
        response = await service.http.get(path)

        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"

    def test_the_build_is_small(self) -> None:
        sizes = {name: len(gzip.compress((files.BUILT / name).read_bytes(), 9)) for name in built_names()}

        assert sum(sizes.values()) < 1_500_000
        assert sum(sizes[name] for name in _first_scripts()) < 250_000


class TestTokens:
    async def test_pages_need_no_token_and_the_api_does(self, guarded: Service) -> None:
        assert (await guarded.http.get("/")).status_code == 200
        assert (await guarded.http.get("/jobs", headers=HTML)).status_code == 200
        assert (await guarded.http.get("/v1/jobs", headers=HTML)).status_code == 401
        answer = await guarded.http.get("/v1/jobs", headers=bearer(await token(guarded, Scope.READ)))
        assert answer.status_code == 200

    def test_only_reading_outside_of_the_api_is_open(self) -> None:
        assert is_console("GET", "/jobs")
        assert not is_console("POST", "/jobs")
        assert not any(is_console("GET", path) for path in ("/v1", "/v1/jobs", "/metrics", "/livez", "/readyz", "/openapi.json"))


def _first_scripts() -> set[str]:
    """Return the scripts that the page names: those that are loaded before the first view."""
    page = (files.BUILT / "index.html").read_text()
    return {path.removeprefix("/") for path in re.findall(r"""(?:src|href)=["'](/assets/[^"']+\.js)["']""", page)}
