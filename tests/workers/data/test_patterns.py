"""Patterns of shards: the same expansion as braceexpand and glob, within limits that hold before anything is expanded."""

import contextlib
import glob
from collections.abc import Iterator
from pathlib import Path

import braceexpand
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinyclip_workers.data import patterns
from tinyclip_workers.data.errors import DataError
from tinyclip_workers.data.patterns import expand_shards
from tinyclip_workers.runtime.addresses import AddressRefused

from tests.s3 import BUCKET, bucket_files, s3_server

PIECES = ["a", "{", "}", ",", "{0..3}", "{07..10}", "{a..e}", "{e..a..2}", "{5..1..2}", "{1..9..0}", "\\{", "\\", "{x,y}", "{,z}"]


@settings(deadline=None)  # a pattern may have thousands of expansions
@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join))
def test_the_count_is_that_of_the_expansion(pattern: str) -> None:
    with contextlib.suppress(braceexpand.UnbalancedBracesError):
        expected = list(braceexpand.braceexpand(pattern))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(patterns, "MAX_DEPTH", 9)
            assert patterns._count(pattern) == len(expected)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/d/{0..2000000}.tar", "evaluation.tasks.a.shards names 2,000,001 shards, at most 500,000 are read"),
        ("/d/{a..z}{a..z}{0..99999}.tar", "names 67,600,000 shards"),
        (["/d/{0..299999}.tar", "/d/{300000..600000}.tar"], "names 600,001 shards"),
        ("/d/{0..999999999999999999}{0..999999999999999999}.tar", "names far too many shards"),
        ("/" + "d" * 500 + "/{0..99999}.tar", "addresses have"),
        ("{" * 9 + "a,b" + "}" * 9, "nested deeper than 2"),
        ("x" * 100_000, "a pattern of 100,000 characters"),
    ],
)
def test_too_many_shards_are_refused_before_they_are_expanded(pattern: str | list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        expand_shards(pattern, "evaluation.tasks.a.shards")

    assert error.value.field == "evaluation.tasks.a.shards"
    assert len(error.value.value) <= 200


@pytest.mark.parametrize(
    "pattern", ["*.tar", "*", ".*", "?/*.tar", "*/*", "[ab]/1.tar", "missing/*.tar", "a*/", "**/1.tar", "b/[!1].tar", "*/x.txt"]
)
@pytest.mark.parametrize("relative", [False, True])
def test_local_globs_match_what_glob_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, relative: bool
) -> None:
    for name in ("a/1.tar", "a/2.tar", "b/1.tar", "b/.hidden.tar", ".c/1.tar", "ab/x.txt", "top.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    whole = pattern if relative else f"{tmp_path}/{pattern}"

    found = expand_shards(whole)

    assert found == sorted(glob.glob(whole))


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_glob_below_many_folders_that_do_not_exist_matches_nothing(tmp_path: Path, scheme: str) -> None:
    assert expand_shards(f"{scheme}{tmp_path}/" + "x/" * 400 + "*.tar") == []
    with pytest.raises(AddressRefused, match="slashes, more than 500"):
        expand_shards(f"{scheme}{tmp_path}/" + "x/" * 5000 + "*.tar")


def test_a_glob_over_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number}.tar").touch()
    monkeypatch.setattr(patterns, "MAX_SHARDS", 29)
    with pytest.raises(DataError, match="globs that match more than 29 files"):
        expand_shards(f"{tmp_path}/*.tar")

    monkeypatch.setattr(patterns, "MAX_LISTED", 29)
    with pytest.raises(DataError, match="globs over more than 29 files and folders"):
        expand_shards(f"{tmp_path}/*.txt")


class TestOnS3:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def bucket(cls) -> Iterator[None]:
        with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            files = bucket_files(environment)
            for path in ("d/", "d/a/1.tar", "d/a/2.tar", "d/b/1.tar", "d/top.tar", "d/b/deep/1.tar"):
                files.pipe_file(f"{BUCKET}/{path}", b"x")
            yield

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("d/*.tar", ["d/top.tar"]),
            ("d/*/1.tar", ["d/a/1.tar", "d/b/1.tar"]),
            ("d/[a]/*.tar", ["d/a/1.tar", "d/a/2.tar"]),
            ("d/**/1.tar", ["d/a/1.tar", "d/b/1.tar", "d/b/deep/1.tar"]),
            ("missing/*.tar", []),
        ],
    )
    def test_globs_match_the_objects_of_a_folder(self, pattern: str, found: list[str]) -> None:
        assert expand_shards(f"s3://{BUCKET}/{pattern}") == [f"s3://{BUCKET}/{path}" for path in found]

    def test_a_glob_over_too_many_objects_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(patterns, "MAX_LISTED", 1)

        with pytest.raises(DataError, match="globs over more than 1 files and folders"):
            expand_shards(f"s3://{BUCKET}/d/a/*.txt")
