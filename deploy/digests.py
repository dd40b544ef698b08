"""Pin the images of the given files by digest, `name:tag@sha256:…`, asking their registries: `make digests`.

    python deploy/digests.py docker-compose.yml deploy/Dockerfile

Needs `docker buildx`. An image that is pinned already gets the current digest of its tag.
"""

import re
import subprocess
import sys
from pathlib import Path

IMAGE = re.compile(r"^(\s*image: |ARG BASE=)([\w./-]+:[\w.-]+)(?:@sha256:[0-9a-f]{64})?$", re.MULTILINE)
OWN = "tinyclip:local"
INSPECT = ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}")


def main(files: list[str]) -> None:
    texts = {Path(file): Path(file).read_text() for file in files}
    images = sorted({match[2] for text in texts.values() for match in IMAGE.finditer(text)} - {OWN})
    found = {image: digest(image) for image in images}
    for file, text in texts.items():
        file.write_text(IMAGE.sub(lambda match: f"{match[1]}{pinned(match[2], found)}", text))
    print("\n".join(f"{image}@{found[image]}" for image in images))


def pinned(image: str, digests: dict[str, str]) -> str:
    """Return an image with its digest; the image that is built here has none."""
    return image if image == OWN else f"{image}@{digests[image]}"


def digest(image: str) -> str:
    """Return the digest of an image, of all its platforms. Raises SystemExit with the registry's answer."""
    ran = subprocess.run([*INSPECT, image], capture_output=True, text=True, check=False)
    found = ran.stdout.strip()
    if ran.returncode or not re.fullmatch("sha256:[0-9a-f]{64}", found):
        raise SystemExit(f"{image}: no digest: {ran.stderr.strip() or found}; nothing was changed")
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
