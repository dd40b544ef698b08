"""A fake of the HTTP API of Ray, for control planes in processes of their own: it runs no job, and keeps all."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeRay(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, version: str = "2.60.0") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.version, self.token = version, ""
        self.jobs: dict[str, dict[str, Any]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeRay

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self._answer({"ray_version": self.server.version, "version": "4"})
        elif self.path.startswith("/api/jobs/"):
            id = self.path.rsplit("/", 1)[1]
            job = self.server.jobs.get(id)
            self._answer(job or f"Job {id} does not exist", 200 if job else 404)
        else:
            self._answer({"applications": {}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if self.path == "/api/jobs/":
            self.server.jobs.setdefault(body["submission_id"], {"status": "RUNNING"})
        self._answer({})

    def _answer(self, answer: dict[str, Any] | str, status: int = 200) -> None:
        """Send a JSON document or a text."""
        allowed = not self.server.token or self.headers.get("authorization") == f"Bearer {self.server.token}"
        content = answer if allowed else {}
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status if allowed else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        return None


@contextmanager
def fake_ray(version: str = "2.60.0") -> Iterator[FakeRay]:
    with FakeRay(version) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
