"""Run ESLint and Prettier over the console, unless it has the digest in linted.txt: they take half a minute of a processor.

    python console/lint.py            run them if the sources, their settings or the locked packages have changed
    python console/lint.py --again    run them in any case

Sources that pass have their digest in linted.txt, which is in the repository.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LINTED = "linted.txt"
LEFT_OUT = {LINTED, "openapi.json", "src/api/schema.d.ts"}
"""The digest itself, and what is generated from the API: the type check has all that a change of it breaks."""


def main() -> int:
    """Return the exit status of ESLint and Prettier; 0 if they have passed these sources before."""
    found = digest(HERE)
    if "--again" not in sys.argv and (HERE / LINTED).read_text().strip() == found:
        return 0
    status = subprocess.run(["npm", "run", "--silent", "lint"], cwd=HERE).returncode
    if status == 0:
        (HERE / LINTED).write_text(found + "\n")
    return status


def digest(folder: Path) -> str:
    """Return a digest of the paths and contents of what ESLint and Prettier read, with their settings and versions."""
    sha256 = hashlib.sha256()
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    for path in sorted(path.as_posix() for path in paths if not {"node_modules", "__pycache__"} & set(path.parts)):
        if path not in LEFT_OUT and not path.endswith((".md", ".py")):
            sha256.update(f"{path}\0{hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n".encode())
    return sha256.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
