"""Spec files, their overrides, and task files."""

import json
from pathlib import Path
from typing import Any

import pytest
from tinyclip.errors import InputError
from tinyclip.specfile import load_spec, load_tasks, parse_assignments

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


def test_relative_paths_are_relative_to_the_file(spec_file: Path) -> None:
    spec = load_spec(Path("specs/shapes.yaml"))
    folder = str(spec_file.parent)
    zero_shot, other, probe = spec["evaluation"]["tasks"]

    assert spec["teacher"]["model"] == f"local-dir:{folder}/teacher"
    assert spec["data"]["train"]["shards"] == f"{folder}/pairs/{{000..003}}.tar"
    assert zero_shot["shards"] == [f"{folder}/val/*.tar", "s3://bucket/{0..9}.tar"]
    assert zero_shot["classes"] == f"{folder}/classes.txt"
    assert zero_shot["templates"] == ["a photo of a {}."]
    assert other["shards"] == "/abs/val.tar"
    assert other["classes"] == ["cat", "dog"]
    assert other["templates"] == "https://example.org/t.txt"
    assert probe["train_shards"] == f"{folder}/../train.tar"


def test_paths_of_several_teachers_and_of_clusters_are_relative_to_the_file(spec_file: Path) -> None:
    document = {
        "teachers": [{"model": "local-dir:a", "weight": 2}, {"model": "ViT-B-32", "pretrained": "b.safetensors"}, 3],
        "objective": {"cluster_instance": 1, "clusters": "c.safetensors"},
        "stages": [{"objective": {"clusters": "s3://bucket/c.safetensors"}}, {"objective": {"clusters": "d.safetensors"}}, None],
    }
    spec_file.write_text(json.dumps(document))

    spec = load_spec(spec_file)

    folder = str(spec_file.parent)
    assert spec["teachers"][0] == {"model": f"local-dir:{folder}/a", "weight": 2}
    assert spec["teachers"][1]["pretrained"] == f"{folder}/b.safetensors"
    assert spec["objective"]["clusters"] == f"{folder}/c.safetensors"
    assert [stage["objective"]["clusters"] for stage in spec["stages"][:2]] == [
        "s3://bucket/c.safetensors", f"{folder}/d.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("teacher", "resolved"),
    [
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}),
        ({"model": "ViT-B-32", "pretrained": "w.safetensors"}, {"model": "ViT-B-32", "pretrained": "{folder}/w.safetensors"}),
        ({"model": "ViT-B-32", "pretrained": "s3://b/w.pt"}, {"model": "ViT-B-32", "pretrained": "s3://b/w.pt"}),
        ({"model": "hf-hub:org/name"}, {"model": "hf-hub:org/name"}),
        ({"model": "registry:shapes@best"}, {"model": "registry:shapes@best"}),
        ({"model": "local-dir:s3://bucket/teacher"}, {"model": "local-dir:s3://bucket/teacher"}),
        ({"model": "local-dir:/abs/teacher"}, {"model": "local-dir:/abs/teacher"}),
    ],
)
def test_only_paths_of_a_teacher_are_resolved(
    spec_file: Path, teacher: dict[str, str], resolved: dict[str, str]
) -> None:
    spec_file.write_text(json.dumps({"name": "x", "teacher": teacher}))

    expected = {key: value.replace("{folder}", str(spec_file.parent)) for key, value in resolved.items()}
    assert load_spec(spec_file)["teacher"] == expected


def test_dates_and_yes_are_texts_and_1e_4_is_a_number(spec_file: Path) -> None:
    spec = load_spec(spec_file)

    assert spec["optimizer"]["lr"] == 1e-4
    assert spec["stages"][0]["train"]["samples"] == 4_000_000
    assert spec["labels"] == {"team": "search", "since": "2026-01-01", "opt_in": "yes"}


@pytest.mark.parametrize(
    ("override", "path", "value"),
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
def test_an_override_has_the_type_of_its_value(spec_file: Path, override: str, path: list[Any], value: object) -> None:
    found: Any = load_spec(spec_file, [override])
    for key in path:
        found = found[key]

    assert found == value
    assert type(found) is type(value)


def test_the_path_of_an_override_is_relative_to_the_current_folder(spec_file: Path, tmp_path: Path) -> None:
    spec = load_spec(spec_file, ["data.train.shards=here.tar"])

    assert spec["data"]["train"]["shards"] == f"{tmp_path}/here.tar"


def test_assignments_keep_their_dotted_paths() -> None:
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
def test_an_invalid_override_is_explained(spec_file: Path, override: str, hint: str) -> None:
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
def test_an_invalid_file_is_named(spec_file: Path, content: bytes, what: str, hint: str) -> None:
    spec_file.write_bytes(content)

    with pytest.raises(InputError) as refused:
        load_spec(spec_file)

    assert refused.value.what.endswith(what)
    assert hint in refused.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: No such file or directory; name a YAML or JSON file"):
        load_spec(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "malformed", ["teacher: x", "data: [1]", "data: {train: 3}", "evaluation: {tasks: 7}", "evaluation: {tasks: [1, null]}"]
)
def test_malformed_parts_are_sent_as_they_are(spec_file: Path, malformed: str) -> None:
    spec_file.write_text(f"name: x\n{malformed}\n")

    assert load_spec(spec_file)["name"] == "x"


TASK = "{name: a, kind: retrieval, shards: x.tar}"


@pytest.mark.parametrize(
    ("text", "holdout"),
    [
        (TASK, None),
        (f"[{TASK}]", None),
        (f"{{tasks: [{TASK}], holdout: 0.2}}", 0.2),
        (f"{{name: job, data: {{train: {{shards: y, holdout: 0.1}}}}, evaluation: {{tasks: [{TASK}]}}}}", 0.1),
    ],
)
def test_a_task_file_has_a_task_a_list_or_a_spec(tmp_path: Path, text: str, holdout: float | None) -> None:
    (tmp_path / "t.yaml").write_text(text)

    assert load_tasks(tmp_path / "t.yaml") == ([{"name": "a", "kind": "retrieval", "shards": f"{tmp_path}/x.tar"}], holdout)


@pytest.mark.parametrize("text", ["", "a", "[1]", "[]", "{name: a}", "{evaluation: {tasks: []}}", "{tasks: x}"])
def test_a_file_without_tasks_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.yaml").write_text(text)

    with pytest.raises(InputError, match="holds no evaluation tasks"):
        load_tasks(tmp_path / "t.yaml")
