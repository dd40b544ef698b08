"""The SDK's methods keep their types in an editor."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_assert_type_and_every_expected_error_holds() -> None:
    command = [sys.executable, "-m", "mypy", "tests/client/typed_usage.py"]

    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
