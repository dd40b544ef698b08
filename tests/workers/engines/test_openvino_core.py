"""OpenVINO's CPU plugin and the signal stack of a process (decision 0026)."""

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

DROP_TWO_TOWERS_THEN_HANDLE_A_SIGNAL = """
import os, signal
import openvino as ov
from openvino import opset13 as op
from tinyclip_workers.engines.openvino_engine import CompiledTower

signal.signal(signal.SIGTERM, lambda *_: print("handled"))
numbers = op.parameter([1, 2], ov.Type.f32)
model = ov.Model([op.relu(numbers)], [numbers])
towers = [CompiledTower(model, threads=1), CompiledTower(model, threads=1)]
del towers[0]
del towers[0]
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_two_towers_were_dropped_in_order_is_handled() -> None:
    command = [sys.executable, "-c", DROP_TWO_TOWERS_THEN_HANDLE_A_SIGNAL]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
