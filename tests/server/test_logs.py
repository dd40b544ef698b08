"""Log lines: ids on every line, both formats, and no secrets."""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars
from tinyclip_server.logs import HIDDEN, Formatter, RotatingFile, Style, known_secrets, logging_to
from tinyclip_server.settings import Settings

from tests.server.service import Service


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    level = logger.level
    yield logger
    logger.setLevel(level)


def formatted(style: Style, message: str, *values: object, secrets: tuple[str, ...] = (), **fields: str) -> str:
    """Return one line as the handler writes it."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(style, secrets=secrets))
    record = logging.LogRecord("tinyclip_server.x", logging.WARNING, __file__, 1, message, values, None)
    with bound_contextvars(**fields):
        handler.handle(record)
    return stream.getvalue()


class TestStyles:
    def test_a_json_line_has_the_message_and_the_ids_as_fields(self) -> None:
        line = json.loads(formatted("json", "lost %d of %s", 3, "them", job_id="job_1", request_id="req_1"))

        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "message": "lost 3 of them", "level": "warning", "logger": "tinyclip_server.x", "job_id": "job_1",
            "request_id": "req_1",
        }

    @pytest.mark.parametrize("style", ["json", "human"])
    def test_a_message_is_one_line_whatever_a_request_has_in_its_path(self, style: Style) -> None:
        line = formatted(style, "GET %s", "/v1/jobs\r\n2026-01-01 [error] forged\x1b[2J\u2028\x85")

        assert len(line.splitlines()) == 1
        assert "\x1b" not in line

    def test_a_human_readable_line_has_them_too(self) -> None:
        line = formatted("human", "lost %d of %s", 3, "them", job_id="job_1")

        assert "lost 3 of them" in line
        assert "job_id=job_1" in line
        assert line.count("\n") == 1

    def test_a_traceback_is_a_field_of_its_json_line(self, caplog: pytest.LogCaptureFixture) -> None:
        try:
            raise ValueError("bad")
        except ValueError:
            logging.getLogger("tinyclip_server.y").exception("it failed")

        line = Formatter("json").format(caplog.records[0])

        assert "\n" not in line
        assert "ValueError: bad" in json.loads(line)["exception"]


class TestSecrets:
    @pytest.mark.parametrize(
        ("message", "secret"),
        [
            ("cannot reach postgresql+asyncpg://tinyclip:hunter2@db/tinyclip", "hunter2"),
            ("sent Authorization: Bearer abc.DEF-123456", "abc.DEF-123456"),
            ("GET https://s3/bucket/x?X-Amz-Signature=deadbeef&part=1", "deadbeef"),
        ],
    )
    @pytest.mark.parametrize("style", ["human", "json"])
    def test_patterns_of_secrets_are_hidden(self, message: str, secret: str, style: Style) -> None:
        line = formatted(style, "%s", message)

        assert secret not in line
        assert HIDDEN in line

    def test_known_secrets_are_hidden_everywhere(self) -> None:
        line = formatted("json", "key=%s", "s3cr3t-key", secrets=("s3cr3t-key", "db"), where="in s3cr3t-key too, not the db")

        assert json.loads(line)["message"] == f"key={HIDDEN}"
        assert json.loads(line)["where"] == f"in {HIDDEN} too, not the db"

    def test_an_address_without_a_password_is_kept(self) -> None:
        assert "http://127.0.0.1:8265/api/jobs/" in formatted("human", "GET http://127.0.0.1:8265/api/jobs/ by a@b.c")

    def test_known_secrets_are_those_of_settings_and_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from the environment")
        (tmp_path / "token").write_text("from a file\n")
        settings = Settings(database_url="postgresql://u:p%40ss@h/d", ray_token_path=tmp_path / "token", data_dir=tmp_path)

        assert {"from the environment", "from a file", "p@ss"} <= known_secrets(settings)


class TestServer:
    async def test_lines_of_requests_and_of_the_scheduler_have_ids(
        self, service: Service, tmp_path: Path, root: logging.Logger
    ) -> None:
        settings = Settings(data_dir=tmp_path, log_format="json")
        worker = await service.running()
        folder = worker.folder
        with logging_to(tmp_path / "logs", settings):
            await service.http.get(f"/v1/jobs/{worker.job}?token=private", headers={"X-Request-Id": "mine-7"})
            (folder / "00000003.jsonl").write_text("not an event\n")
            await service.tick()

        lines = [json.loads(line) for line in (tmp_path / "logs" / "server.log").read_text().splitlines()]
        (request,) = [line for line in lines if line["logger"] == "tinyclip_server.api.request_log"]
        (error,) = [line for line in lines if line["logger"] == "tinyclip_server.orchestration.ray_jobs.event_segments"]
        assert (request["request_id"], request["job_id"], request["status"]) == ("mine-7", worker.job, 200)
        assert request["message"] == f"GET /v1/jobs/{worker.job} 200"
        assert (error["job_id"], error["attempt"]) == (worker.job, 1)


class TestRotatingFile:
    def test_a_full_file_is_rotated(self, tmp_path: Path) -> None:
        handler = RotatingFile(tmp_path / "server.log", maxBytes=100, backupCount=1)
        for number in range(12):
            handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "line %02d", (number,), None))
        handler.close()

        # Twelve lines of 8 bytes are not 100, thirteen are.
        assert not (tmp_path / "server.log.1").exists()

        handler = RotatingFile(tmp_path / "server.log", maxBytes=100, backupCount=1)
        for number in (12, 13):
            handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, "line %02d", (number,), None))
        handler.close()

        assert (tmp_path / "server.log.1").read_text().splitlines()[-1] == "line 12"
        assert (tmp_path / "server.log").read_text() == "line 13\n"
