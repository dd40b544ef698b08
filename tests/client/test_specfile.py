"""A spec file means the same from wherever it is submitted."""

import json
from pathlib import Path
from typing import Any

import pytest
from tinyclip.errors import InputError
from tinyclip.specfile import load_spec, parse_assignments

SPEC = """\
name: shapes
labels: {team: search, since: 2026-01-01, opt_in: yes}
teacher: {model: "local-dir:teacher"}
data: {train: {shards: "pairs/{000..003}.tar"}}
evaluation:
  tasks:
    - name: a
      kind: zero_shot
      shards: ["val/*.tar", "s3://bucket/{0..9}.tar"]
      classes: classes.txt
      templates: ["a photo of a {}."]
    - {name: b, kind: zero_shot, shards: /abs/val.tar, classes: [cat, dog], templates: https://example.org/t.txt}
    - {name: c, kind: linear_probe, train_shards: ../train.tar, shards: val.tar}
stages: [{name: half, student: {image: {layers: 2}}, train: {samples: 4_000_000}}]
optimizer: {lr: 1e-4}
"""


@pytest.fixture
def spec_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "specs").mkdir()
    file = tmp_path / "specs" / "shapes.yaml"
    file.write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return file


def test_relative_paths_are_beside_the_file(spec_file: Path) -> None:
    spec = load_spec(Path("specs/shapes.yaml"))
    beside = str(spec_file.parent)
    zero_shot, other, probe = spec["evaluation"]["tasks"]

    assert spec["teacher"]["model"] == f"local-dir:{beside}/teacher"
    assert spec["data"]["train"]["shards"] == f"{beside}/pairs/{{000..003}}.tar"
    assert zero_shot["shards"] == [f"{beside}/val/*.tar", "s3://bucket/{0..9}.tar"]
    assert zero_shot["classes"] == f"{beside}/classes.txt"
    assert zero_shot["templates"] == ["a photo of a {}."]
    assert other["shards"] == "/abs/val.tar"
    assert other["classes"] == ["cat", "dog"]
    assert other["templates"] == "https://example.org/t.txt"
    assert probe["train_shards"] == f"{beside}/../train.tar"


def test_several_teachers_and_clusters_are_beside_the_file_too(spec_file: Path) -> None:
    document = {
        "teachers": [{"model": "local-dir:a", "weight": 2}, {"model": "ViT-B-32", "pretrained": "b.safetensors"}, 3],
        "objective": {"cluster_instance": 1, "clusters": "c.safetensors"},
        "stages": [{"objective": {"clusters": "s3://bucket/c.safetensors"}}, {"objective": {"clusters": "d.safetensors"}}, None],
    }
    spec_file.write_text(json.dumps(document))

    spec = load_spec(spec_file)

    beside = str(spec_file.parent)
    assert spec["teachers"][0] == {"model": f"local-dir:{beside}/a", "weight": 2}
    assert spec["teachers"][1]["pretrained"] == f"{beside}/b.safetensors"
    assert spec["objective"]["clusters"] == f"{beside}/c.safetensors"
    assert [stage["objective"]["clusters"] for stage in spec["stages"][:2]] == [
        "s3://bucket/c.safetensors", f"{beside}/d.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("teacher", "resolved"),
    [
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}),
        ({"model": "ViT-B-32", "pretrained": "w.safetensors"}, {"model": "ViT-B-32", "pretrained": "{beside}/w.safetensors"}),
        ({"model": "ViT-B-32", "pretrained": "s3://b/w.pt"}, {"model": "ViT-B-32", "pretrained": "s3://b/w.pt"}),
        ({"model": "hf-hub:org/name"}, {"model": "hf-hub:org/name"}),
        ({"model": "registry:shapes@best"}, {"model": "registry:shapes@best"}),
        ({"model": "local-dir:s3://bucket/teacher"}, {"model": "local-dir:s3://bucket/teacher"}),
        ({"model": "local-dir:/abs/teacher"}, {"model": "local-dir:/abs/teacher"}),
    ],
)
def test_only_what_is_a_path_of_the_teacher_is_resolved(
    spec_file: Path, teacher: dict[str, str], resolved: dict[str, str]
) -> None:
    spec_file.write_text(json.dumps({"name": "x", "teacher": teacher}))

    expected = {key: value.replace("{beside}", str(spec_file.parent)) for key, value in resolved.items()}
    assert load_spec(spec_file)["teacher"] == expected


def test_values_are_what_people_mean(spec_file: Path) -> None:
    spec = load_spec(spec_file)

    assert spec["optimizer"]["lr"] == 1e-4
    assert spec["stages"][0]["train"]["samples"] == 4_000_000
    assert spec["labels"] == {"team": "search", "since": "2026-01-01", "opt_in": "yes"}


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("optimizer.lr=3e-4", ["optimizer", "lr"], 3e-4),
        ("optimizer.lr=.5", ["optimizer", "lr"], 0.5),
        ("stages.0.train.samples=10", ["stages", 0, "train", "samples"], 10),
        ("resources.workers={min: 1, max: 2}", ["resources", "workers"], {"min": 1, "max": 2}),
        ("objective.contrastive=1", ["objective", "contrastive"], 1),
        ("evaluation.every_steps=null", ["evaluation", "every_steps"], None),
        ("labels.team=ranking", ["labels", "team"], "ranking"),
        ("labels.run='007'", ["labels", "run"], "007"),
        ("labels.note=a=b", ["labels", "note"], "a=b"),
        ("evaluation.tasks.1.classes=[a, b]", ["evaluation", "tasks", 1, "classes"], ["a", "b"]),
        ("flag=true", ["flag"], True),
        ("labels.sure=no", ["labels", "sure"], "no"),
    ],
)
def test_set_gives_a_value_its_type(spec_file: Path, override: str, place: list[Any], value: object) -> None:
    found: Any = load_spec(spec_file, [override])
    for key in place:
        found = found[key]

    assert found == value
    assert type(found) is type(value)


def test_a_path_given_at_the_shell_is_relative_to_where_one_is(spec_file: Path, tmp_path: Path) -> None:
    spec = load_spec(spec_file, ["data.train.shards=here.tar"])

    assert spec["data"]["train"]["shards"] == f"{tmp_path}/here.tar"


def test_assignments_without_a_file_keep_their_dotted_places() -> None:
    assert parse_assignments(["optimizer.lr=1e-4", "stages.0.train.steps=5"]) == {"optimizer.lr": 1e-4, "stages.0.train.steps": 5}


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("optimizer.lr", "write it as optimizer.lr=1e-4"),
        ("=3", "write it as optimizer.lr=1e-4"),
        ("stages.3.name=x", "stages has entries 0 to 0, not 3"),
        ("stages.first.name=x", "stages has entries 0 to 0, not first"),
        ("name.x=1", "name is text and has nothing below it"),
        ("labels.x=[1", "the value is not YAML; quote it"),
    ],
)
def test_a_bad_set_says_the_way_out(spec_file: Path, override: str, hint: str) -> None:
    with pytest.raises(InputError) as refused:
        load_spec(spec_file, [override])

    assert refused.value.what == f"--set {override}"
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (b"name: [x", "shapes.yaml, line 1, column 9", "not YAML: expected ',' or ']'"),
        (b"- name: x", "shapes.yaml", "holds a list; a spec is a mapping"),
        (b"", "shapes.yaml", "holds nothing; a spec is a mapping"),
        (b"name: \xff", "shapes.yaml", "not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_spec_is_named(spec_file: Path, content: bytes, what: str, hint: str) -> None:
    spec_file.write_bytes(content)

    with pytest.raises(InputError) as refused:
        load_spec(spec_file)

    assert refused.value.what.endswith(what)
    assert hint in refused.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: No such file or directory; name a YAML or JSON file"):
        load_spec(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "odd", ["teacher: x", "data: [1]", "data: {train: 3}", "evaluation: {tasks: 7}", "evaluation: {tasks: [1, null]}"]
)
def test_what_has_another_shape_is_left_for_the_server_to_refuse(spec_file: Path, odd: str) -> None:
    spec_file.write_text(f"name: x\n{odd}\n")

    assert load_spec(spec_file)["name"] == "x"
