"""Refused imports: an activation that no source gives, tensors that fit no preset."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from tinyclip.schemas.imports import ImportOptions
from tinyclip_workers.importing.layout_inference import expect_shapes, find_layout

from tests.workers.imports import official_names, read, refusal, save


class TestQuickGelu:
    """The activation comes from the source or from the request; it is never guessed."""

    @pytest.mark.parametrize(
        ("options", "quick", "source"),
        [
            ({"origin": "ViT-B-32@openai"}, True, "the origin ViT-B-32@openai"),
            ({"origin": "ViT-B-32@laion2b_s34b_b79k"}, False, "the origin ViT-B-32@laion2b_s34b_b79k"),
            ({"origin": "ViT-B-32@openai", "quick_gelu": False}, False, "the request"),
        ],
    )
    def test_by_the_origin_or_the_request(self, model: CLIP, options: Any, quick: bool, source: str, tmp_path: Path) -> None:
        found = read(save(tmp_path / "m.pt", model.state_dict()), preset="plain-vit", **options)

        assert (found.summary.layout.quick_gelu, found.lineage["import"]["quick_gelu_told_by"]) == (quick, source)

    def test_by_the_published_configuration(self, model: CLIP, tmp_path: Path) -> None:
        file = save(tmp_path / "m.pt", official_names(model.state_dict()))

        assert read(file, preset="TinyCLIP-vit", origin="ViT-B-32@openai").summary.layout.quick_gelu is False

    @pytest.mark.parametrize("official", [False, True])
    def test_is_required_where_no_source_gives_it(self, model: CLIP, official: bool, tmp_path: Path) -> None:
        state = official_names(model.state_dict()) if official else model.state_dict()

        error = refusal(save(tmp_path / "m.pt", state), preset="plain-vit")

        assert error.pointer == "/quick_gelu"
        assert "give true (--quick-gelu)" in error.message

    @pytest.mark.parametrize("origin", ["ViT-B-32", "ViT-B-32@nowhere", "ghost@openai"])
    def test_an_unknown_origin_is_refused(self, model: CLIP, origin: str, tmp_path: Path) -> None:
        error = refusal(save(tmp_path / "m.pt", model.state_dict()), preset="plain-vit", origin=origin)

        assert (error.pointer, error.value) == ("/origin", origin)


class TestMismatches:
    def test_name_the_tensor_its_shape_and_the_expected_one(self, model: CLIP, tmp_path: Path) -> None:
        state = model.state_dict() | {"visual.proj": torch.zeros(32, 25)}

        error = refusal(save(tmp_path / "m.pt", state), preset="plain-vit", quick_gelu=False)

        assert error.message.startswith(
            "does not fit: the file has visual.proj of shape (32, 25), where plain-vit has (32, 24); name the preset"
        )

    def test_name_the_preset_that_fits(self, model: CLIP, tmp_path: Path) -> None:
        error = refusal(save(tmp_path / "m.pt", model.state_dict()), preset="plain-resnet", quick_gelu=False)

        assert error.pointer == "/preset"
        assert "it fits TinyCLIP-vit or plain-vit" in error.message

    @pytest.mark.parametrize(("gone", "extra"), [("ln_final.bias", None), (None, "visual.ln_extra.weight")])
    def test_missing_and_extra_tensors_are_refused(
        self, model: CLIP, gone: str | None, extra: str | None, tmp_path: Path
    ) -> None:
        state = {name: tensor for name, tensor in model.state_dict().items() if name != gone}
        state |= {extra: torch.zeros(2)} if extra else {}

        assert str(gone or extra) in refusal(save(tmp_path / "m.pt", state), preset="plain-vit", quick_gelu=False).message

    def test_an_unknown_preset_is_refused_with_the_nearest_name(self, model: CLIP, tmp_path: Path) -> None:
        error = refusal(save(tmp_path / "m.pt", model.state_dict()), preset="TinyCLIP-ViT-40M-Text-19M")

        assert (error.pointer, "did you mean TinyCLIP-ViT-40M-32-Text-19M" in error.message) == ("/preset", True)

    def test_a_bare_state_dict_needs_a_preset(self, model: CLIP, tmp_path: Path) -> None:
        error = refusal(save(tmp_path / "m.pt", model.state_dict()))

        assert (error.pointer, "any architecture of open_clip" in error.message) == ("/preset", True)

    def test_values_that_are_not_finite_are_refused(self, model: CLIP, tmp_path: Path) -> None:
        state = model.state_dict() | {"ln_final.bias": torch.full((32,), float("nan"))}

        assert "ln_final.bias" in refusal(save(tmp_path / "m.pt", state), preset="plain-vit", quick_gelu=False).message

    def test_architectures_of_open_clip_are_presets(self) -> None:
        config = open_clip.get_model_config("ViT-L-14")
        with torch.device("meta"):
            shapes = {name: tuple(tensor.shape) for name, tensor in CLIP(**config).state_dict().items()}

        options = ImportOptions(preset="ViT-L-14")
        layout = find_layout(shapes, {}, options, official=False)

        expect_shapes(shapes, layout, options)  # raises nothing
        assert (layout.image.width, layout.image.layers, layout.text.width) == (1024, [24], 768)
