"""The names that `import tinyclip` exports, and the modules that it loads."""

import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import tinyclip
import tinyclip.schemas

HEAVY = {"torch", "torchvision", "open_clip", "ray", "fastapi", "sqlalchemy", "numpy", "PIL"}


def public_names(module: types.ModuleType) -> set[str]:
    named = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return {name for name, value in named.items() if not isinstance(value, types.ModuleType)}


def test_all_lists_the_public_names() -> None:
    assert sorted(tinyclip.__all__) == sorted(public_names(tinyclip) | {"__version__"})


def test_all_of_the_schemas_lists_the_public_names() -> None:
    assert sorted(tinyclip.schemas.__all__) == sorted(public_names(tinyclip.schemas))


def test_every_error_is_in_the_family_tree() -> None:
    kinds = {name for name, kind in vars(tinyclip.errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    tree = tinyclip.errors.__doc__ or ""

    assert kinds == {name for name in kinds if name in tree}
    assert kinds <= set(tinyclip.__all__)


def test_the_package_is_typed() -> None:
    assert (Path(tinyclip.__file__).parent / "py.typed").exists()


def loaded_modules(imports: str) -> set[str]:
    script = f"import {imports}, sys, json; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(json.loads(printed))


def test_the_sdk_loads_no_heavy_module() -> None:
    assert not (HEAVY | {"typer", "yaml", "tinyclip.cli"}) & loaded_modules("tinyclip, tinyclip.schemas")


def test_the_command_line_loads_no_heavy_module() -> None:
    assert not HEAVY & loaded_modules("tinyclip.cli")
