"""Settings in deployment files."""

from tinyclip_server.settings import Settings


def expect_settings(names: set[str]) -> None:
    """Each `TINYCLIP_*` variable is a setting that there is."""
    known = {f"TINYCLIP_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in names if name.startswith("TINYCLIP_")} <= known
