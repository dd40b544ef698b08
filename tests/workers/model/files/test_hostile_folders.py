"""Model files that anybody may have written: every one is used or refused by name, and no content of it is repeated."""

import contextlib
import copy
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tinyclip.schemas.imports import ImportOptions
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.importing.convert import read_model
from tinyclip_workers.importing.source_files import ImportRefused
from tinyclip_workers.model.architecture import open_clip_config
from tinyclip_workers.model.files.errors import TeacherError
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.files.sources import check_teacher
from tinyclip_workers.model.files.weights import load_state_dict, read_header
from tinyclip_workers.training.clusters import ClustersError, read_clusters_header

from tests.workers.inheritance.towers import siglip_layout
from tests.workers.models import tiny_layout, tiny_model, write_folder

SECRET = "hunter2-of-the-database"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)
sizes = st.integers(-2, 2**64) | st.integers(0, 8)
entries = st.fixed_dictionaries(
    {}, optional={
        "dtype": st.sampled_from(["F32", "I32", "F16", SECRET]) | json_values,
        "shape": st.lists(sizes, max_size=4) | json_values,
        "data_offsets": st.lists(sizes, min_size=1, max_size=3) | json_values,
    },
)  # fmt: skip
compact = ("token_embedding.rows", "token_embedding.values", "token_embedding.vocab_size")
names = st.sampled_from(["a", "__metadata__", *compact]) | st.text(max_size=5)
headers = st.dictionaries(names, entries | json_values, max_size=4)
bounded = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_file(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def import_of(source: Path, scratch: Path, **options: Any) -> dict[str, Any]:
    return {
        "source": str(source), "upload_name": None, "scratch": str(scratch), "limit": 1 << 30, "pointer": "/source",
        "options": ImportOptions(**options).model_dump(),
    }  # fmt: skip


class TestHeaders:
    @pytest.mark.parametrize(
        "header",
        [
            '{"a":{}}', '{"a":1}', '{"a":null}', "[]", "null", "1", '"text"', '{"__metadata__":1}', '{"__metadata__":{"a":1}}',
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', '{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}',
            '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', '{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}',
            '{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}', "{" * 50_000, "[" * 100_000,
            '{"token_embedding.values":{"dtype":"F16","shape":[1,1],"data_offsets":[0,2]}}',
        ],
    )
    def test_an_invalid_header_is_refused_wherever_headers_are_read(self, tmp_path: Path, header: str) -> None:
        folder = write_folder(tmp_path / "teacher", tiny_model(), tiny_layout())
        path = write_file(folder / "open_clip_model.safetensors", header.encode(), bytes(4))

        for read in (read_header, load_state_dict):
            with pytest.raises(WeightsError, match=r"open_clip_model\.safetensors"):
                read(str(path))
        with pytest.raises(TeacherError, match=r"open_clip_model\.safetensors"):
            check_teacher(TeacherSpec(model=f"local-dir:{folder}"))
        with pytest.raises(ClustersError):
            read_clusters_header(str(path))
        with pytest.raises(ImportRefused, match="neither a safetensors file nor"):
            read_model(import_of(path, tmp_path / "scratch", preset="ViT-B-32"))

    @bounded
    @given(header=headers, size=st.integers(0, 16))
    def test_any_header_is_read_or_refused(self, tmp_path: Path, header: dict[str, Any], size: int) -> None:
        path = write_file(tmp_path / "w.safetensors", json.dumps(header).encode(), bytes(size))

        for read in (read_header, load_state_dict):
            with expect_no_content(WeightsError):
                read(str(path))

    @bounded
    @given(data=st.binary(max_size=64))
    def test_any_bytes_are_read_or_refused(self, tmp_path: Path, data: bytes) -> None:
        path = write_file(tmp_path / "w.safetensors", data)

        for read in (read_header, load_state_dict):
            with expect_no_content(WeightsError):
                read(str(path))

    @pytest.mark.parametrize(
        ("vocab_size", "rows", "reason"),
        [
            (3, [0, 5], "beyond its 3 tokens"), (3, [-1, 1], "beyond its 3 tokens"), (1, [0, 1], "do not fit"),
            (2**31 - 1, [0, 1], "do not fit"),
        ],
    )
    def test_a_compact_file_must_fit_its_vocabulary(self, tmp_path: Path, vocab_size: int, rows: list[int], reason: str) -> None:
        header = {
            "token_embedding.rows": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]},
            "token_embedding.values": {"dtype": "F16", "shape": [2, 1], "data_offsets": [8, 12]},
            "token_embedding.vocab_size": {"dtype": "I32", "shape": [], "data_offsets": [12, 16]},
        }
        data = struct.pack("<iieei", *rows, 1.0, 2.0, vocab_size)
        path = write_file(tmp_path / "w.safetensors", json.dumps(header).encode(), data)

        with pytest.raises(WeightsError, match=reason):
            load_state_dict(str(path))


class TestConfigurations:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "teacher", tiny_model(), tiny_layout())

    @bounded
    @given(document=json_values | st.fixed_dictionaries({"model_cfg": json_values, "preprocess_cfg": json_values}))
    def test_any_configuration_is_used_or_refused(self, folder: Path, document: Any) -> None:
        (folder / "open_clip_config.json").write_text(json.dumps(document))

        expect_refusal_without_content(folder)

    @bounded
    @given(data=st.data(), part=st.sampled_from(["", "vision_cfg", "text_cfg"]))
    def test_any_value_of_a_configuration_is_used_or_refused(self, folder: Path, data: st.DataObject, part: str) -> None:
        document = {"model_cfg": copy.deepcopy(open_clip_config(tiny_layout()))}
        holder = document["model_cfg"][part] if part else document["model_cfg"]
        holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(json_values | st.integers(-(10**20), 10**20))
        (folder / "open_clip_config.json").write_text(json.dumps(document))

        expect_refusal_without_content(folder)

    @bounded
    @given(data=st.data(), part=st.sampled_from(["", "image", "text", "pool"]))
    def test_any_value_of_a_layout_is_used_or_refused(self, folder: Path, data: st.DataObject, part: str) -> None:
        document = (siglip_layout() if part == "pool" else tiny_layout()).model_dump(mode="json")
        holder = {"": document, "pool": document["image"]["pool"]}.get(part) or document[part]
        holder[data.draw(st.sampled_from(sorted(holder)))] = data.draw(json_values | st.integers(-(10**20), 10**20))
        (folder / "layout.json").write_text(json.dumps(document))

        expect_refusal_without_content(folder)

    @pytest.mark.parametrize("name", ["open_clip_config.json", "layout.json", "model.json"])
    @pytest.mark.parametrize(
        "content", [f"password = {SECRET}\n", f'{{"{SECRET}": 1}}', f'["{SECRET}"]', f'"{SECRET}"', "[" * 100_000]
    )
    def test_a_text_file_in_the_place_of_one_is_not_repeated(self, folder: Path, tmp_path: Path, name: str, content: str) -> None:
        (folder / name).write_text(content)

        expect_refusal_without_content(folder)
        if name != "model.json":
            with pytest.raises(ImportRefused) as refused:
                read_model(import_of(folder, tmp_path / "scratch"))
            assert SECRET not in str(refused.value)


def expect_refusal_without_content(folder: Path) -> None:
    """Expect that a folder is used, or refused without content of its files; nothing else may be raised."""
    with expect_no_content(TeacherError):
        check_teacher(TeacherSpec(model=f"local-dir:{folder}"))


@contextlib.contextmanager
def expect_no_content(refusal: type[Exception]) -> Iterator[None]:
    """Expect nothing, or a refusal whose message has no content of a file."""
    try:
        yield
    except refusal as error:
        message = str(error)
    else:
        message = ""
    assert SECRET not in message


@pytest.mark.parametrize("repository", ["../../etc", "a", "a/b/c", "/etc/passwd", "a/..", "a b/c", ""])
def test_a_name_that_is_no_repository_of_the_hub_is_refused(repository: str) -> None:
    with pytest.raises(TeacherError, match="is not a repository"):
        check_teacher(TeacherSpec(model=f"hf-hub:{repository}"))
