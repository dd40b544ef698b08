"""The processor that figures are of."""

import platform
from pathlib import Path

SPEAKING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def cpu() -> str:
    """Its name and, of the instructions that make networks faster, those that it has."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return f"{model}, {' '.join(flag for flag in SPEAKING_FLAGS if flag in flags)}"
