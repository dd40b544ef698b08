"""A tokenizer that needs files is read from its model's folder, and is the one that open_clip reads there."""

import json
from pathlib import Path

import open_clip
import pytest
from safetensors.torch import save as to_safetensors
from tinyclip_workers.model.architecture import open_clip_config
from tinyclip_workers.model.files.folders import WEIGHTS_FILES, find_folder, load_folder
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.tokenizers import SETTINGS_FILE, TokenizerError, TokenizerSource
from tinyclip_workers.versions.writer import model_files
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from tests.workers.models import tiny_layout, tiny_model

WORDS = ["<pad>", "<unk>", "a", "red", "blue", "house", "bird", "<start>", "<end>"]
TEXTS = ["A red  house", "a blue bird on a red house", "", "red " * 50]


def word_tokenizer() -> TokenizerSource:
    """A tokenizer of a few words; its end of text is its largest id, as CLIP's text tower needs."""
    vocabulary = {token: id for id, token in enumerate(WORDS)}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    special = [(token, vocabulary[token]) for token in ("<start>", "<end>")]
    made.post_processor = TemplateProcessing(single="<start> $A <end>", special_tokens=special)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    files = {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}
    return TokenizerSource(files, {"clean": "lower"})


def write_folder(folder: Path, tokenizer: TokenizerSource) -> None:
    weights = to_safetensors({name: tensor.contiguous() for name, tensor in tiny_model().state_dict().items()})
    for name, content in model_files(tiny_layout(), weights, OPENAI_MEAN, OPENAI_STD, None, tokenizer).items():
        (folder / name).write_bytes(content)


def test_a_version_has_the_tokenizer_of_its_student(tmp_path: Path) -> None:
    write_folder(tmp_path, word_tokenizer())

    ours, theirs = load_folder(str(tmp_path)).tokenizer, open_clip.get_tokenizer(f"local-dir:{tmp_path}")

    tokens = ours(TEXTS)
    assert tokens[1, :9].tolist() == [7, 2, 4, 6, 1, 2, 3, 5, 8]
    assert tokens.equal(theirs(TEXTS))


def test_a_folder_without_settings_of_ours_is_read_by_its_configuration(tmp_path: Path) -> None:
    write_folder(tmp_path, word_tokenizer())
    expected = load_folder(str(tmp_path)).tokenizer(TEXTS)
    (tmp_path / SETTINGS_FILE).unlink()

    assert load_folder(str(tmp_path)).tokenizer(TEXTS).equal(expected)


def test_missing_files_are_named_with_their_place(tmp_path: Path) -> None:
    config = open_clip_config(tiny_layout())
    config["text_cfg"]["hf_tokenizer_name"] = "timm/ViT-B-16-SigLIP"
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (tmp_path / WEIGHTS_FILES[0]).write_bytes(to_safetensors(tiny_model().state_dict()))

    with pytest.raises(WeightsError, match=r"needs the files of the tokenizer timm/ViT-B-16-SigLIP: put tokenizer.json"):
        find_folder(str(tmp_path))


@pytest.mark.parametrize("settings", [{"options": {"clean": "eval"}}, {"options": {"code": "x"}}, {"mode": "other"}])
def test_unknown_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(TokenizerError):
        TokenizerSource.from_files({SETTINGS_FILE: json.dumps(settings).encode()})
