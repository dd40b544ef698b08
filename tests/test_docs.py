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


class TestGuarantees:
    """Each guarantee of docs/reliability.md and of the rules of access in docs/operations.md names tests that there are."""

    @pytest.mark.parametrize("page", ["reliability.md", "operations.md"])
    def test_every_one_names_a_test(self, page: str) -> None:
        rows = _guarantees(page)

        assert len(rows) > 9
        assert [row for row in rows if not re.findall(r"`[^`]+::test_\w+`|`chaos [\w-]+`", row.rsplit("|", 2)[1])] == []

    @pytest.mark.parametrize("page", ["reliability.md", "operations.md"])
    def test_every_test_exists(self, page: str) -> None:
        named = re.findall(r"`([\w/]+/test_\w+\.py|test_\w+\.py)::(?:\w+::)?(test_\w+)`", (ROOT / "docs" / page).read_text())

        assert named
        missing = [f"{file}::{test}" for file, test in named if not _is_defined(ROOT / "tests" / file, test)]
        assert missing == []

    def test_every_case_of_chaos_exists(self) -> None:
        from bench.chaos.cases import CASES

        named = set(re.findall(r"`chaos ([\w-]+)`", (ROOT / "docs" / "reliability.md").read_text()))

        assert named
        assert named - {case.name for case in CASES} == set()


def _guarantees(page: str) -> list[str]:
    """Return the rows of the tables whose last column is `test`."""
    rows, inside = [], False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        inside = line.startswith("|") and (inside or line.endswith("| test |"))
        if inside and not line.endswith("| test |") and not line.startswith("|---"):
            rows.append(line)
    return rows


def _is_defined(file: Path, test: str) -> bool:
    return file.is_file() and f"def {test}(" in file.read_text()
