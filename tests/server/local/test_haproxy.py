"""The start script of HAProxy, with the template of the installed Ray and the installed HAProxy."""

import re
import subprocess
from pathlib import Path

import pytest
from tinyclip_server.local.haproxy import write_start_script
from tinyclip_server.local.machine import free_port

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
