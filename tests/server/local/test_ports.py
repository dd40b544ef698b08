"""The ports of the embedded service: how they are chosen, and held until the program that they are for binds them."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tinyclip_server.local import machine
from tinyclip_server.local.machine import PortTaken, free_port, free_ports, hold, listen
from tinyclip_server.local.ray import HELD_PORTS, LocalRay
from tinyclip_server.settings import Settings

REUSE_ADDRESS, REUSE_PORT = socket.SO_REUSEADDR, socket.SO_REUSEPORT


def listening(port: int, host: str = "127.0.0.1", *, option: int = REUSE_ADDRESS) -> socket.socket:
    """Return a listening socket as servers have it: SO_REUSEADDR and, like HAProxy, perhaps SO_REUSEPORT."""
    server = socket.socket()
    try:
        for each in {REUSE_ADDRESS, option}:
            server.setsockopt(socket.SOL_SOCKET, each, 1)
        server.bind((host, port))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


class TestChoice:
    def test_ports_chosen_together_are_distinct(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "PORTS", range(29_900, 30_000))

        assert len(set(free_ports(40))) == 40

    def test_a_port_that_is_bound_and_does_not_listen_yet_is_not_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with listen("127.0.0.1", free_port(), "--port") as bound:
            monkeypatch.setattr(machine, "PORTS", [bound.getsockname()[1]])
            monkeypatch.setattr(machine, "TRIES", 1)

            with pytest.raises(PortTaken):
                free_port()


class TestHeldPort:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
    def test_no_other_program_gets_it(self, host: str) -> None:
        port = free_port()

        with hold(host, port, "--serve-port"):
            for other in ("127.0.0.1", "0.0.0.0"):
                with pytest.raises(OSError, match="in use"):
                    listening(port, other)
            with pytest.raises(PortTaken):
                listen(host, port, "--serve-port")
            with pytest.raises(PortTaken, match=f"{host}:{port} .* another port with --serve-port"):
                hold(host, port, "--serve-port")

    def test_it_refuses_connections_until_its_program_gets_all_of_them(self) -> None:
        port = free_port()

        with hold("127.0.0.1", port, "--serve-port"):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            with listening(port, option=REUSE_PORT) as program:
                program.settimeout(5)
                for _ in range(50):
                    with socket.create_connection(("127.0.0.1", port), timeout=5):
                        program.accept()[0].close()

    @pytest.mark.parametrize("option", [REUSE_ADDRESS, REUSE_PORT], ids=["ordinary", "sharing"])
    def test_the_port_of_a_listening_program_cannot_be_held(self, option: int) -> None:
        with listening(free_port(), option=option) as program, pytest.raises(PortTaken):
            hold("127.0.0.1", program.getsockname()[1], "--serve-port")

    def test_closed_connections_of_an_earlier_program_do_not_take_it(self) -> None:
        port = free_port()
        with listening(port) as earlier, socket.create_connection(("127.0.0.1", port)) as client:
            earlier.accept()[0].close()  # the side that closes first keeps the port in TIME_WAIT
            client.recv(1)

        with hold("127.0.0.1", port, "--serve-port"), pytest.raises(OSError, match="in use"):
            listening(port)


@contextlib.contextmanager
def launched(ray: LocalRay, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Launch a head that is only a process; yield its environment."""
    code = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(60)"
    monkeypatch.setattr(ray, "_command", lambda: [sys.executable, "-c", code])
    process = ray._launch()
    try:
        while not (text := ray._log.read_text()).endswith("}\n"):
            assert process.poll() is None, text
        yield json.loads(text)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


class TestEmbeddedCluster:
    async def test_two_that_start_at_once_have_different_dashboards(self, tmp_path: Path) -> None:
        clusters = [LocalRay(Settings(data_dir=tmp_path / str(port), serve_port=port)) for port in free_ports(2)]

        for ray in clusters:
            await ray.clear()
        addresses = {ray.address for ray in clusters}
        for ray in clusters:
            await ray.stop()

        assert len(addresses) == 2

    def test_its_head_holds_the_ports_of_the_proxy_that_the_first_deployment_starts(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        ray = LocalRay(Settings(data_dir=tmp_path, serve_port=free_port()))

        with launched(ray, monkeypatch) as environment:
            ports = [ray._settings.serve_port, *(int(environment[name]) for name in HELD_PORTS)]

            assert environment["SERVE_SOCKET_REUSE_PORT_ENABLED"] == "1"
            assert len(set(ports)) == 4
            for port in ports:
                with pytest.raises(OSError, match="in use"):
                    listening(port)
                listening(port, option=REUSE_PORT).close()

        for port in ports:
            listening(port).close()

    def test_it_does_not_start_if_the_port_of_deployments_was_taken_meanwhile(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with listening(free_port()) as other:
            port = other.getsockname()[1]
            ray = LocalRay(Settings(data_dir=tmp_path, serve_port=port))

            taken = pytest.raises(PortTaken, match=f"127.0.0.1:{port} .* another port with --serve-port")
            with taken, launched(ray, monkeypatch):
                pass

        assert not (tmp_path / "ray.json").exists()
