"""The start script of HAProxy, with the template of the installed Ray and the installed HAProxy."""

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tinyclip_server.local.haproxy import write_start_script
from tinyclip_server.local.machine import free_port, hold

haproxy = pytest.importorskip("ray.serve._private.haproxy")
HTTPOptions = pytest.importorskip("ray.serve.config").HTTPOptions


def generated(folder: Path, host: str) -> Path:
    """Return a configuration as Ray Serve generates it."""
    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host=host, port=free_port()), stats_port=free_port(), metrics_port=free_port(),
        socket_path=str(folder / "admin.sock"), server_state_base=str(folder), server_state_file=str(folder / "state"),
    )  # fmt: skip
    file = folder / "haproxy.cfg"
    haproxy.HAProxyApi(config, {}, str(file))._generate_config_file_internal()
    return file


@contextmanager
def running(config: Path, script: Path) -> Iterator[tuple[str, str]]:
    """Run HAProxy; yield the URLs of its statistics and metrics."""
    ports = re.findall(r"bind 127\.0\.0\.1:(\d+)\n    http-request deny", config.read_text())
    metrics, statistics = (f"http://127.0.0.1:{port}" for port in ports)
    with subprocess.Popen([script, "-db", "-f", config], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(metrics, trust_env=False)
                    break
                time.sleep(0.05)
            yield f"{statistics}/stats", f"{metrics}/metrics"
        finally:
            process.kill()


def binds(config: Path) -> dict[str, str]:
    """Return the bound host of each section that binds an address."""
    sections = re.split(r"^(?=\w)", config.read_text(), flags=re.MULTILINE)
    found = {section.splitlines()[0]: re.search(r"^\s+bind (\S*):\d+", section, re.MULTILINE) for section in sections if section}
    return {name: match[1] for name, match in found.items() if match}


@pytest.mark.parametrize(("host", "bound"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "*")])
def test_statistics_and_metrics_are_bound_to_loopback_and_queries_where_they_are_configured(
    tmp_path: Path, host: str, bound: str
) -> None:
    config = generated(tmp_path, host)
    before = binds(config)

    script = write_start_script(tmp_path / "a b'c")
    checked = subprocess.run([script, "-c", "-f", config], capture_output=True, text=True, timeout=60)
    again = subprocess.run([script, "-c", "-f", config], capture_output=True, text=True, timeout=60)

    assert before == {"frontend prometheus": "", "frontend http_frontend": bound, "listen stats": "*"}
    assert (checked.returncode, again.returncode) == (0, 0), checked.stderr + checked.stdout
    assert binds(config) == {"frontend prometheus": "127.0.0.1", "frontend http_frontend": bound, "listen stats": "127.0.0.1"}


def test_a_page_of_another_site_cannot_read_them_by_a_name_that_it_resolves_to_this_machine(tmp_path: Path) -> None:
    config, script = generated(tmp_path, "127.0.0.1"), write_start_script(tmp_path / "start")
    subprocess.run([script, "-c", "-f", config], check=True, capture_output=True, timeout=60)

    with running(config, script) as urls:
        answers = {
            host: [httpx.get(url, headers={"Host": host}, trust_env=False).status_code for url in urls]
            for host in ("localhost", "127.0.0.1:9101", "evil.example", "127.0.0.1.evil.example:80")
        }

    assert answers == {
        "localhost": [200, 200], "127.0.0.1:9101": [200, 200],
        "evil.example": [403, 403], "127.0.0.1.evil.example:80": [403, 403],
    }  # fmt: skip


def test_it_binds_ports_that_are_held_for_it(tmp_path: Path) -> None:
    config, script = generated(tmp_path, "127.0.0.1"), write_start_script(tmp_path / "start")
    subprocess.run([script, "-c", "-f", config], check=True, capture_output=True, timeout=60)
    ports = re.findall(r"^\s+bind 127\.0\.0\.1:(\d+)", config.read_text(), re.MULTILINE)

    with contextlib.ExitStack() as held:
        for port in ports:
            held.enter_context(hold("127.0.0.1", int(port), "--serve-port"))
        with running(config, script) as urls:
            answers = [httpx.get(url, trust_env=False).status_code for url in urls]

    assert (len(ports), answers) == (3, [200, 200])


def test_headers_of_a_request_have_a_time_limit(tmp_path: Path) -> None:
    config, script = generated(tmp_path, "127.0.0.1"), write_start_script(tmp_path / "start")

    for _ in range(2):  # as after a reload
        subprocess.run([script, "-c", "-f", config], check=True, capture_output=True, timeout=60)

    defaults = re.split(r"^(?=\w)", config.read_text(), flags=re.MULTILINE)
    assert [section.count("timeout http-request 10s") for section in defaults if section.startswith("defaults")] == [1]
