"""What `import tinyclip` gives, and what it costs."""

import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import tinyclip
import tinyclip.schemas

HEAVY = {"torch", "torchvision", "open_clip", "ray", "fastapi", "sqlalchemy", "numpy", "PIL", "typer", "yaml", "tinyclip.cli"}


def public_names(module: types.ModuleType) -> set[str]:
    named = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name for name, value in named.items() if not isinstance(value, types.ModuleType)}


def test_all_is_what_is_there() -> None:
    assert sorted(tinyclip.__all__) == sorted(public_names(tinyclip) | {"__version__"})


def test_all_of_the_schemas_is_what_is_there() -> None:
    assert sorted(tinyclip.schemas.__all__) == sorted(public_names(tinyclip.schemas))


def test_every_error_is_drawn_in_the_family_tree() -> None:
    kinds = {name for name, kind in vars(tinyclip.errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    tree = tinyclip.errors.__doc__ or ""

    assert kinds == {name for name in kinds if name in tree}
    assert kinds <= set(tinyclip.__all__)


def test_the_package_is_typed() -> None:
    assert (Path(tinyclip.__file__).parent / "py.typed").exists()


def test_importing_it_is_light() -> None:
    script = "import tinyclip, tinyclip.schemas, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert not HEAVY & set(json.loads(loaded))


def test_the_command_line_needs_no_more_than_a_plain_install_has() -> None:
    script = "import tinyclip.cli, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert not {"torch", "torchvision", "open_clip", "ray", "fastapi", "sqlalchemy", "numpy", "PIL"} & set(json.loads(loaded))
