"""A real S3 server in a separate process, with one empty bucket."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import s3fs

from tests.ports import free_ports

BUCKET = "tinyclip"
START_SECONDS = 60.0


def s3_environment(port: int) -> dict[str, str]:
    """Return the environment variables that configure S3 clients for the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextmanager
def s3_server(port: int | None = None) -> Iterator[dict[str, str]]:
    """Run moto's server with one bucket; yield its `s3_environment`."""
    s3fs.S3FileSystem.clear_instance_cache()  # instances keep the address that they have seen first
    [port] = free_ports(1) if port is None else [port]
    environment = s3_environment(port)
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _make_bucket(environment, process)
        yield environment
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        process.kill()
        process.wait()


def bucket_files(environment: dict[str, str]) -> s3fs.S3FileSystem:
    """Return a file system on the server for the test itself."""
    return s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _make_bucket(environment: dict[str, str], process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            bucket_files(environment).mkdir(BUCKET)
        except OSError:  # not listening yet
            assert process.poll() is None, f"the S3 server exited with status {process.returncode}"
            assert time.monotonic() < end, f"the S3 server was not ready after {START_SECONDS:g} s"
            time.sleep(0.2)
        else:
            return
