"""Imported models compute the same as their source: checkpoints of the official implementation, files of open_clip."""

import hashlib
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save as save_tensors
from safetensors.torch import save_file
from tinyclip.schemas import EmbeddingType, ExportOptions, VocabularyChoice
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import TeacherSpec
from tinyclip_workers.engines.load import load_engine
from tinyclip_workers.evaluation.embedding import embed_texts
from tinyclip_workers.exporting.formats.tinyclip import export_tinyclip
from tinyclip_workers.importing.layout_inference import expect_auto_preset, layout_of_shapes, size_warnings
from tinyclip_workers.importing.source_files import ImportRefused
from tinyclip_workers.model.architecture import build_model, open_clip_config
from tinyclip_workers.model.files.folders import load_folder
from tinyclip_workers.model.files.sources import load_teacher
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.preprocessing import OPENAI_MEAN, OPENAI_STD
from tinyclip_workers.model.summary import state_shapes, summarize
from tinyclip_workers.model.tokenizers import count_unknown_tokens
from tinyclip_workers.model.towers import Clip
from tinyclip_workers.model.vocabularies.vocabulary import Vocabulary, reduced_model, tokens_of
from tinyclip_workers.versions.writer import model_files

from tests.workers.exports import random_model
from tests.workers.imports import (
    LAYOUTS,
    VIT,
    assert_same,
    checkpoint,
    embeddings,
    official_names,
    read,
    refusal,
    save,
    version_of,
)
from tests.workers.inheritance.towers import random_clip, siglip_layout
from tests.workers.masked_case import LAYOUT as FIXTURE
from tests.workers.masked_case import TOLERANCE
from tests.workers.models import tiny_model, write_folder
from tests.workers.parity import Arrays, assert_near, document


class TestOfficialManual:
    """Files of manual inheritance: uniform students, whose expected outputs come from open_clip itself."""

    @pytest.mark.parametrize("model", ["vit", "resnet"], indirect=True)
    @pytest.mark.parametrize(
        ("ddp", "doubled", "wrapper"),
        [(False, False, None), (True, False, "state_dict"), (True, True, "model"), (False, True, "state_dict")],
    )
    def test_opens_in_open_clip_and_computes_the_same(
        self, model: CLIP, ddp: bool, doubled: bool, wrapper: str | None, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        kind = request.node.callspec.params["model"]
        state = official_names(model.state_dict(), ddp=ddp, doubled=doubled)
        file = save(tmp_path / "m.pt", checkpoint(state, wrapper) if wrapper else state)

        _, folder = version_of(read(file, preset=f"TinyCLIP-{kind}"), tmp_path)

        opened, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        assert_same(embeddings(opened.eval(), LAYOUTS[kind]), embeddings(model, LAYOUTS[kind]))
        assert opened.logit_scale == model.logit_scale

    def test_fp16_values_are_preserved(self, model: CLIP, tmp_path: Path) -> None:
        file = save(tmp_path / "m.pt", official_names({name: t.half() for name, t in model.state_dict().items()}))

        found = read(file, preset="TinyCLIP-vit")

        assert found.lineage["import"]["dtypes"] == ["float16"]
        assert all(torch.equal(found.state[name], t.half().float()) for name, t in model.state_dict().items())
        _, folder = version_of(found, tmp_path)
        model.load_state_dict(found.state)
        assert_same(embeddings(load_folder(str(folder)).model, VIT), embeddings(model, VIT))

    def test_a_published_file_of_full_size(self, tmp_path: Path) -> None:
        """The smallest published architecture, in fp16 and saved under DDP like the published files."""
        preset = "TinyCLIP-ViT-8M-16-Text-3M"
        model = tiny_model(1, PRESETS[preset])
        state = official_names({name: t.half() for name, t in model.state_dict().items()}, ddp=True)

        found = read(save(tmp_path / "m.pt", {"state_dict": state}), preset=preset)

        assert round(found.summary.image_params / 1e6, 3) == 8.277
        assert found.summary.layout == PRESETS[preset]  # without QuickGELU, like the published configurations
        model.load_state_dict({name: t.half().float() for name, t in model.state_dict().items()})
        read_back = build_model(found.summary.layout)
        read_back.load_state_dict(found.state)
        assert_same(embeddings(read_back.eval(), PRESETS[preset]), embeddings(model, PRESETS[preset]))

    def test_conflicting_duplicate_tensors_are_resolved_with_a_warning(self, model: CLIP, tmp_path: Path) -> None:
        state = official_names(model.state_dict(), ddp=True, doubled=True)
        state["_image_encoder.module.visual.proj"] = torch.zeros_like(model.visual.proj)

        found = read(save(tmp_path / "m.pt", state), preset="TinyCLIP-vit")

        assert torch.equal(found.state["visual.proj"], model.visual.proj)
        assert found.lineage["import"]["warnings"] == [
            "1 tensors occur twice with different values, for example visual.proj; those of the encoders without DDP were used"
        ]


class TestOfficialAuto:
    """Files of automatic inheritance: tensors and outputs of the reference's own pruned model."""

    @pytest.mark.parametrize("case", ["search", "binary"])
    @pytest.mark.parametrize("ddp", [False, True])
    def test_computes_the_same_as_the_references_pruned_model(self, case: str, ddp: bool, tmp_path: Path) -> None:
        pruned, arrays = Arrays("prune.npz").under(f"{case}/"), Arrays("mask.npz")
        file = save(tmp_path / "auto.pt", checkpoint(official_names(pruned, ddp=ddp, doubled=True)))
        widths = {"head_width": FIXTURE.image.head_width, "text_head_width": FIXTURE.text.head_width}

        version, folder = version_of(read(file, quick_gelu=False, **widths), tmp_path)

        expected = document("mask.json")["cases"][case]["layout"]
        for tower, blocks in ((version.layout.image, expected["vision"]), (version.layout.text, expected["text"])):
            assert tower.heads == [block["heads"] for block in blocks]
            assert tower.mlp == [block["mlp"] for block in blocks]
        assert {"layout.json", "model.safetensors", "layout.svg"} <= {file.path for file in version.files}
        model = load_folder(str(folder)).model
        with torch.no_grad():
            assert_near(model.encode_image(arrays["images"]), arrays[f"{case}/pruned_image"], TOLERANCE, "images")
            assert_near(model.encode_text(arrays["tokens"]), arrays[f"{case}/pruned_text"], TOLERANCE, "texts")

    def test_a_student_with_equal_blocks_is_written_for_open_clip(self, model: CLIP, tmp_path: Path) -> None:
        file = save(tmp_path / "m.pt", official_names(model.state_dict()))

        version, folder = version_of(read(file, quick_gelu=False, head_width=16), tmp_path)

        assert "open_clip_config.json" in {file.path for file in version.files}
        opened, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        assert_same(embeddings(opened.eval(), VIT), embeddings(model, VIT))

    def test_a_wrong_head_width_is_refused(self, model: CLIP, tmp_path: Path) -> None:
        error = refusal(save(tmp_path / "m.pt", official_names(model.state_dict())), quick_gelu=False)

        assert (error.pointer, error.value) == ("/head_width", 64)
        assert "visual.transformer.resblocks.0.attn.in_proj_weight has 96 rows" in error.message

    def test_unfolded_masks_are_refused(self, model: CLIP, tmp_path: Path) -> None:
        state = official_names(model.state_dict()) | {"_image_encoder.l0_module.hidden_loga": torch.zeros(32)}

        assert "after the prune step" in refusal(save(tmp_path / "m.pt", state)).message


class TestAutoPresets:
    """Automatic presets fix only what all published automatic students share."""

    PRESET = "TinyCLIP-auto-ViT-22M-32-Text-10M"

    def pruned_layout(self, **image: Any) -> Layout:
        full = PRESETS["ViT-B-32"]
        blocks = {"width": 480, "heads": [4, 0, *[3] * 10], "mlp": [700, 0, *[600] * 10], **image}
        text = {"width": 320, "heads": [3] * 12, "mlp": [500] * 12}
        return full.model_copy(update={"image": full.image.model_copy(update=blocks), "text": full.text.model_copy(update=text)})

    def test_a_layout_is_inferred_from_the_shapes_of_its_tensors(self) -> None:
        layout = self.pruned_layout()

        assert layout_of_shapes(state_shapes(layout), 64, 64) == layout
        expect_auto_preset(layout, self.PRESET)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"patch_size": 16, "image_size": 112}, r"visual\.conv1\.weight of shape \(480, 3, 16, 16\).*\(768, 3, 32, 32\)"),
            ({"image_size": 256}, r"visual\.positional_embedding of shape \(65, 480\).*\(50, 768\)"),
            ({"width": 832}, r"visual\.conv1\.weight of shape \(832, 3, 32, 32\)"),
            ({"heads": [13] * 12}, r"heads \[13, "),
        ],
    )
    def test_a_layout_that_cannot_come_from_the_published_original_is_refused(
        self, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ImportRefused, match=message):
            expect_auto_preset(self.pruned_layout(**changes), self.PRESET)

    def test_a_size_that_differs_from_the_presets_is_a_warning(self) -> None:
        summary = summarize(self.pruned_layout())

        found = (summary.image_params / 1e6, summary.text_params_without_embedding / 1e6)
        assert size_warnings(summary, self.PRESET) == [
            f"image tower: {found[0]:.1f}M parameters, {self.PRESET} names 22M",
            f"text tower: {found[1]:.1f}M parameters, {self.PRESET} names 10M",
        ]
        assert size_warnings(summary, f"TinyCLIP-auto-ViT-{found[0]:.0f}M-32-Text-{found[1]:.0f}M") == []


class TestOpenClip:
    @pytest.mark.parametrize("form", ["bare", "module", "state_dict", "safetensors", "text"])
    def test_state_dicts(self, model: CLIP, form: str, tmp_path: Path) -> None:
        state = model.state_dict()
        file = tmp_path / "weights.pt"
        if form == "safetensors":
            file = tmp_path / "weights.safetensors"
            save_file(state, file)
        elif form == "text":  # open_clip's CustomTextCLIP, with a buffer that older versions saved
            outside = ("visual.", "logit_scale")
            named = {name if name.startswith(outside) else f"text.{name}": tensor for name, tensor in state.items()}
            save(file, named | {"text.attn_mask": torch.full((12, 12), float("-inf")).triu(1)})
        else:
            named = {f"module.{name}": tensor for name, tensor in state.items()} if form == "module" else dict(state)
            save(file, checkpoint(named) if form == "state_dict" else named)

        version, folder = version_of(read(file, preset="plain-vit", quick_gelu=True), tmp_path)

        theirs = open_clip.model.CLIP(**open_clip_config(VIT.model_copy(update={"quick_gelu": True}))).eval()
        theirs.load_state_dict(state)
        assert version.layout.quick_gelu
        assert_same(embeddings(load_folder(str(folder)).model, VIT), embeddings(theirs, VIT))

    @pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
    def test_directories_need_no_options(self, model: CLIP, weights: str, tmp_path: Path) -> None:
        layout = VIT.model_copy(update={"quick_gelu": True})
        folder = write_folder(tmp_path / "source", model, layout)
        if weights.endswith(".bin"):
            (folder / "open_clip_model.safetensors").unlink()
            save(folder / weights, model.state_dict())

        version, made = version_of(read(folder), tmp_path)

        loaded = load_folder(str(made))
        theirs, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        assert (version.layout, loaded.image_std) == (layout, (0.2, 0.2, 0.2))
        assert version.lineage["import"]["quick_gelu_told_by"] == "open_clip_config.json"
        assert_same(embeddings(loaded.model, VIT), embeddings(theirs.eval(), VIT))

    def test_a_version_of_another_registry_keeps_its_layout(self, tmp_path: Path) -> None:
        pruned = Arrays("prune.npz").under("binary/")
        file = save(tmp_path / "auto.pt", official_names(pruned))
        widths = {"head_width": FIXTURE.image.head_width, "text_head_width": FIXTURE.text.head_width}
        first, folder = version_of(read(file, quick_gelu=True, **widths), tmp_path)

        again, _ = version_of(read(folder), tmp_path, "again")

        assert again.layout == first.layout
        assert again.params == first.params


@pytest.mark.parametrize("embedding", ["fp32", "int8"])
def test_an_export_with_a_reduced_vocabulary_becomes_a_version(tmp_path: Path, embedding: str) -> None:
    small = reduced_model(random_model("folded"), Vocabulary.of_tokens(tokens_of(["a red square"], 16)))
    (tmp_path / "export").mkdir()
    export_tinyclip(small, tmp_path / "export", ExportOptions(False, VocabularyChoice.REDUCED, EmbeddingType(embedding)))

    _, folder = version_of(read(tmp_path / "export"), tmp_path)

    found = load_folder(str(folder))
    assert found.layout == small.layout
    assert found.tokenizer(["a red bus"]).equal(small.tokenizer(["a red bus"]))
    assert count_unknown_tokens(found.tokenizer, ["a red bus"]) == 1
    with torch.no_grad():
        expected = embed_texts(load_folder(str(tmp_path / "export")), ["a red square"])
        assert embed_texts(found, ["a red square"]).equal(expected)


def test_a_student_like_siglip_becomes_a_version(tmp_path: Path) -> None:
    layout = siglip_layout()
    layout = layout.model_copy(update={"text": layout.text.model_copy(update={"vocab_size": 49408})})
    clip = random_clip(layout)
    (tmp_path / "student").mkdir()
    for name, content in model_files(layout, save_tensors(clip.state_dict()), OPENAI_MEAN, OPENAI_STD, None).items():
        (tmp_path / "student" / name).write_bytes(content)

    version, folder = version_of(read(tmp_path / "student"), tmp_path)

    assert version.layout == layout
    assert_same(embeddings(load_folder(str(folder)).model, layout), embeddings(clip, layout))


def test_an_automatic_student_can_be_deployed(tmp_path: Path) -> None:
    layout = VIT.model_copy(update={"text": VIT.text.model_copy(update={"vocab_size": 49408, "heads": [1, 2], "mlp": [0, 50]})})
    torch.manual_seed(2)
    state = Clip(layout).state_dict()
    file = save(tmp_path / "auto.pt", official_names(state, ddp=True))

    _, folder = version_of(read(file, quick_gelu=False, head_width=16), tmp_path)

    ours = Clip(layout).eval()
    ours.load_state_dict(state)
    texts_BL = load_folder(str(folder)).tokenizer(["a cat", "a dog"])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(ours.encode_text(texts_BL), dim=-1)
    embedded = torch.as_tensor(load_engine(str(folder)).encode_text(["a cat", "a dog"]))
    torch.testing.assert_close(embedded, expected, atol=1e-5, rtol=1e-5)


def test_a_version_records_its_origin_and_can_be_a_teacher(model: CLIP, tmp_path: Path) -> None:
    file = save(tmp_path / "TinyCLIP.pt", checkpoint(official_names(model.state_dict())))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    version, folder = version_of(read(file, preset="TinyCLIP-vit"), tmp_path)

    origin = version.lineage["import"]
    assert (origin["file"], origin["sha256"], origin["bytes"]) == ("TinyCLIP.pt", digest, file.stat().st_size)
    assert (origin["wrapper"], origin["preset"], origin["source"]) == ("state_dict", "TinyCLIP-vit", str(file))
    assert (version.teacher, version.job, version.evaluation) == (None, None, {})
    assert version.params.image == sum(p.numel() for p in model.visual.parameters())
    assert json.loads((folder / "model.json").read_text())["macs"] == summarize(VIT).macs
    card = (folder / "README.md").read_text()
    assert f"imported from TinyCLIP.pt sha256 {digest}" in card
    assert "Not evaluated here." in card
    loaded = load_teacher(TeacherSpec(model=f"local-dir:{folder}"))
    assert_same(embeddings(loaded.model, VIT), embeddings(model, VIT))
