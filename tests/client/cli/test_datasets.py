"""`datasets …`."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tinyclip.cli.display import datasets as display
from tinyclip.cli.display.numbers import bars
from tinyclip.schemas import DatasetReport, DatasetVersion

from tests.client.conftest import Cli, Serve
from tests.client.documents import dataset_report, dataset_version
from tests.client.servers import DatasetServer

SIZE = "pairs@1: 1,100 pairs for training of 1,200 samples in 2 shards, 3.4MB\n"


@pytest.fixture
def server(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetServer:
    monkeypatch.chdir(tmp_path)
    server = DatasetServer()
    serve(server.app())
    return server


class TestCreate:
    def test_it_waits_and_prints_the_first_findings(self, cli: Cli, server: DatasetServer, tmp_path: Path) -> None:
        options = ("--holdout", "0.05", "--caption-key", "json.t")
        result = cli("datasets", "create", "pairs", "--shards", "train/{0..3}.tar", *options)

        assert (result.code, result.out) == (0, (
            f"{SIZE}error: shifted_captions found. Remove shifted_captions.\n"
            "warning: small_images found. Remove small_images.\ninfo: urls found. Remove urls.\n"
            "1 more: tinyclip-client datasets report pairs@1\n"
        ))  # fmt: skip
        source = {"shards": f"{tmp_path}/train/{{0..3}}.tar", "caption_key": "json.t"}
        assert server.bodies == [{"source": source, "holdout": 0.05}]

    def test_unchanged_data_is_noted(self, cli: Cli, server: DatasetServer) -> None:
        server.latest, server.message = 1, "shards and settings equal those of the newest version"

        result = cli("datasets", "create", "pairs", "--shards", "s3://b/0.tar")

        assert result.out.splitlines()[1] == "shards and settings equal those of the newest version"

    def test_options_replace_values_of_a_file(self, cli: Cli, server: DatasetServer, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "pairs.yaml").write_text("""
source: {shards: "*.tar", captions: more.parquet, where: {kind: photo}}
teacher: {model: "local-dir:teacher"}
tasks: [{name: cars, kind: retrieval, shards: val.tar}]
""")
        (tmp_path / "tasks.yaml").write_text("{name: dogs, kind: retrieval, shards: dogs.tar}")

        options = ("--set", "source.where.agreement.min=0.2", "--task", "tasks.yaml", "--image-size", "256")
        result = cli("datasets", "create", "pairs", "--file", "data/pairs.yaml", "--shards", "other.tar", *options)

        assert result.code == 0
        assert server.bodies == [{
            "source": {
                "shards": f"{tmp_path}/other.tar", "captions": f"{tmp_path}/data/more.parquet",
                "where": {"kind": "photo", "agreement": {"min": 0.2}},
            },
            "teacher": {"model": f"local-dir:{tmp_path}/data/teacher"},
            "tasks": [{"name": "dogs", "kind": "retrieval", "shards": f"{tmp_path}/dogs.tar"}],
            "image_size": 256,
        }]  # fmt: skip

    @pytest.mark.parametrize(
        ("named", "sent"),
        [
            ("ViT-B-32/openai", {"model": "ViT-B-32", "pretrained": "openai"}),
            ("emoji@best", {"model": "registry:emoji@best"}),
            ("hf-hub:org/clip", {"model": "hf-hub:org/clip"}),
            ("local-dir:/models/a", {"model": "local-dir:/models/a"}),
        ],
    )
    def test_forms_of_teachers(self, cli: Cli, server: DatasetServer, named: str, sent: dict[str, str]) -> None:
        cli("datasets", "create", "pairs", "--shards", "s3://b/0.tar", "--teacher", named)

        assert server.bodies[0]["teacher"] == sent

    def test_json_is_the_registered_data_set(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "create", "pairs", "--shards", "s3://b/0.tar", "--json")

        assert (result.code, json.loads(result.out)["state"]) == (0, "ready")

    def test_without_waiting_the_request_is_shown(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "create", "pairs", "--shards", "s3://b/0.tar", "--no-wait")

        assert (result.code, result.out) == (0, "pairs registering 50%\n")

    def test_a_failure_names_the_field(self, cli: Cli, server: DatasetServer) -> None:
        server.states, server.message = ["failed"], "no shard has samples"
        server.error = {"code": "no_samples", "message": server.message, "pointer": "/source/shards", "value": "s3://b/0.tar"}

        result = cli("datasets", "create", "pairs", "--shards", "s3://b/0.tar")

        assert (result.code, result.out) == (1, "pairs failed, pairs@1 is the latest: no shard has samples\n")
        assert result.err == "/source/shards: s3://b/0.tar\n"

    def test_without_shards_it_is_refused(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "create", "pairs")

        assert (result.code, server.bodies) == (2, [])
        assert "name the shards" in result.err


class TestShow:
    def test_a_report_has_findings_examples_statistics_and_a_histogram(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "report", "pairs")

        lines = result.out.splitlines()
        assert lines[0] == SIZE.strip()
        assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
            "error", "shifted_captions", "~1,100", "~100.0%", "shifted_captions found.", "Remove shifted_captions.",
        ]
        assert "| small_images | a/1     | /d/0.tar | 20 px  |" in lines
        assert "captions: 2.3k captions, 2.1k distinct, 2 a sample; characters: min 3, mean 21.5, p95 40, max 90" in lines
        assert "captions by language: en 2.2k, de 100" in lines
        assert "languages: en 98.0%, de 2.0%" in lines
        assert "smaller than the student's input: 21.0%" in lines
        assert lines[-4:] == [
            "agreement of ViT-B-32/openai on 512 pairs: AUC 0.512; true pairs 0.180, shuffled 0.180 on average",
            "  true      ▁█▄", "  shuffled ▁█▄", "           -0.10 0.30",
        ]

    def test_json_is_the_report(self, cli: Cli, server: DatasetServer) -> None:
        assert json.loads(cli("datasets", "report", "pairs@1", "--json").out) == dataset_report()

    def test_a_report_without_findings_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        empty = DatasetReport.model_validate({"samples": 3, "usable": 3, "findings": []})

        display.show_report(DatasetVersion.model_validate(dataset_version()), empty)

        assert capsys.readouterr().out == f"{SIZE}no findings\n"

    def test_a_report_fits_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = io.StringIO()
        terminal = Console(file=screen, force_terminal=True, width=100, color_system=None)
        monkeypatch.setattr(display, "console", lambda: terminal)

        display.show_report(
            DatasetVersion.model_validate(dataset_version()), DatasetReport.model_validate(dataset_report())
        )

        assert max(map(len, screen.getvalue().splitlines())) <= 100

    def test_a_version(self, cli: Cli, server: DatasetServer) -> None:
        out = cli("datasets", "get", "pairs@best").out

        assert "| pairs for training | 1,100 of 1,200 samples " in out
        assert "| shards             | 2, 3.4MB, compressed " in out
        assert "| findings           | shifted_captions 1.1k, small_images 240 " in out

    def test_a_data_set(self, cli: Cli, server: DatasetServer) -> None:
        server.states = ["ready"]

        assert cli("datasets", "get", "pairs").out == "pairs ready, pairs@1 is the latest\n"

    def test_samples_have_captions_or_the_reason_why_not(self, cli: Cli, server: DatasetServer) -> None:
        lines = cli("datasets", "samples", "pairs@best").out.splitlines()
        unusable = json.loads(cli("datasets", "samples", "pairs", "--use", "unusable", "--json").out)["items"]

        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]]
        assert rows == [
            ["0", "a/0", "64x48", "training", "a cat / a small cat"], ["1", "a/1", "", "unusable", "it has no txt"],
            ["2", "a/2", "64x48", "held_out", "a cat / a small cat"],
        ]  # fmt: skip
        assert [each["number"] for each in unusable] == [1]

    def test_a_list(self, cli: Cli, server: DatasetServer) -> None:
        lines = cli("datasets", "list").out.splitlines()

        assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["pairs", "ready", "1", "1", "best=1", "50%", ""]
        assert lines[-1] == "more: --page-token more"


class TestReinforce:
    def test_it_waits_until_the_embeddings_are_stored(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "reinforce", "pairs@best", "--teacher", "ViT-B-32/openai", "--augmentations", "3")

        assert (result.code, result.out) == (0, "reinf_1 pairs@1 with ViT-B-32/openai succeeded, 5.5k views, 12MB\n")
        assert server.bodies == [{"teacher": {"model": "ViT-B-32", "pretrained": "openai"}, "augmentations": 3}]

    def test_a_dry_run_prints_the_cost(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "reinforce", "pairs@best", "--teacher", "ViT-B-32/openai", "--dry-run")

        assert (result.code, result.out) == (0, (
            "5.5k views and 2.1k texts, 12MB, about 1m15s of one core or GPU\n"
            "live teachers take about 61.0% of a step; the reinforcement takes as long as they do in 2.5 epochs\n"
        ))  # fmt: skip
        assert server.bodies == [{"teacher": {"model": "ViT-B-32", "pretrained": "openai"}, "dry_run": True}]

    def test_several_teachers_and_settings_of_a_file(self, cli: Cli, server: DatasetServer, tmp_path: Path) -> None:
        (tmp_path / "r.yaml").write_text("teacher: {model: 'local-dir:teacher'}\naugment: {horizontal_flip: 0.5}\n")
        named = ("--teacher", "emoji@best", "--teacher", "ViT-B-32/openai")

        cli("datasets", "reinforce", "pairs", "--file", "r.yaml", "--dtype", "int8", "--set", "augment.gray=0.1", "--no-wait")
        cli("datasets", "reinforce", "pairs", *named, "--captions", "first", "--no-wait")

        several = [{"model": "registry:emoji@best"}, {"model": "ViT-B-32", "pretrained": "openai"}]
        assert server.bodies == [
            {
                "teacher": {"model": f"local-dir:{tmp_path}/teacher"}, "augment": {"horizontal_flip": 0.5, "gray": 0.1},
                "dtype": "int8",
            },
            {"teachers": several, "captions": "first"},
        ]  # fmt: skip

    def test_a_failure(self, cli: Cli, server: DatasetServer) -> None:
        server.reinforcement_states, server.message = ["failed"], "no weights"

        result = cli("datasets", "reinforce", "pairs", "--teacher", "ViT-B-32/openai")

        assert (result.code, result.out.endswith("failed, 5.5k views, 12MB: no weights\n")) == (1, True)

    def test_json_is_the_reinforcement(self, cli: Cli, server: DatasetServer) -> None:
        result = cli("datasets", "reinforce", "pairs", "--teacher", "ViT-B-32/openai", "--json")

        assert json.loads(result.out)["state"] == "succeeded"

    def test_without_a_teacher_it_is_refused(self, cli: Cli, server: DatasetServer) -> None:
        assert (cli("datasets", "reinforce", "pairs").code, server.bodies) == (2, [])

    def test_a_list_and_a_deletion(self, cli: Cli, server: DatasetServer) -> None:
        lines = cli("datasets", "reinforcements", "pairs").out.splitlines()
        deleted = cli("datasets", "delete", "pairs@1", "--reinforcement", "reinf_1")

        row = [cell.strip() for cell in lines[2].strip("|").split("|")]
        assert row == ["reinf_1", "ViT-B-32/openai", "succeeded", "5", "5.5k", "2.1k", "12MB", "50%", ""]
        assert deleted.out.startswith("reinf_1 pairs@1 with ViT-B-32/openai deleting 50%")


class TestChange:
    def test_an_alias_is_set_and_removed(self, cli: Cli, server: DatasetServer) -> None:
        set_, removed = cli("datasets", "alias", "pairs", "best", "1"), cli("datasets", "alias", "pairs", "best", "--remove")

        assert (set_.out, removed.out) == ("pairs: best is pairs@1\n", "")
        assert (server.bodies, server.removed) == ([{"version": 1, "alias": "best"}], ["pairs/aliases/best"])

    @pytest.mark.parametrize("arguments", [["best"], ["best", "1", "--remove"]])
    def test_an_alias_needs_one_of_both(self, cli: Cli, server: DatasetServer, arguments: list[str]) -> None:
        assert cli("datasets", "alias", "pairs", *arguments).code == 2

    def test_a_data_set_or_a_version_is_deleted(self, cli: Cli, server: DatasetServer) -> None:
        whole, one = cli("datasets", "delete", "pairs"), cli("datasets", "delete", "pairs@1")

        assert (whole.code, one.code) == (0, 0)
        assert server.removed == ["pairs", "pairs/versions/1"]


def test_bars_of_counts_begin_at_zero() -> None:
    assert bars([0, 1, 4, 8]) == " ▁▄█"
    assert bars([]) == ""
    assert bars([0, 0]) == "  "
