"""The documentation: its links lead somewhere, and its lines fit a terminal."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("bench/*.md")])
LONGEST_LINE = 120


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())

    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]

    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_prose_wraps_at_120_columns(page: Path) -> None:
    lines, in_code, too_long = page.read_text().splitlines(), False, []
    for number, line in enumerate(lines, start=1):
        in_code ^= line.lstrip().startswith("```")
        if len(line) > LONGEST_LINE and not in_code and not line.lstrip().startswith(("|", "![", "<")):
            too_long.append(number)

    assert not too_long
