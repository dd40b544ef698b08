"""Students of towers like SigLIP's: attention pooling, and texts that are read at their last token in both directions."""

import pytest
import torch
from tinyclip.schemas.layouts import Layout
from tinyclip.schemas.spec import ImageTower, StudentSpec, TextTower
from tinyclip_workers.inheritance.leading import inherit_leading, inheritance_problems
from tinyclip_workers.inheritance.students import cut_by_masks, on_principal_axes
from tinyclip_workers.model.architecture import resolve_layout
from tinyclip_workers.model.fold import fold
from tinyclip_workers.model.layouts import PRESETS
from tinyclip_workers.model.masked import full_mask
from tinyclip_workers.model.masks import TOWERS, Mask
from tinyclip_workers.model.towers import Clip, normalized

from tests.workers.inheritance.towers import (
    by_importance,
    calibration_of,
    distance,
    embeddings,
    model_of,
    random_clip,
    random_pairs,
    siglip_layout,
    vit_layout,
)

PAIRS, NEW_PAIRS = random_pairs(), random_pairs(seed=2)


def leading(student: Layout, parent: Clip) -> Clip:
    return model_of(inherit_leading(Clip(student), parent.state_dict(), student, parent.layout), student)


def some_units(clip: Clip) -> dict[str, Mask]:
    """Masks of both towers that remove some units of each kind and scale others."""
    generator = torch.Generator().manual_seed(3)

    def row(count: int) -> torch.Tensor:
        factors = torch.rand(count, generator=generator) * (torch.rand(count, generator=generator) > 0.3)
        factors[0] = 0.5
        return factors

    masks = {tower: full_mask(clip.layout, tower) for tower in TOWERS}
    return {
        tower: Mask(row(len(mask.hidden)), tuple(row(len(r)) for r in mask.heads), tuple(row(len(r)) for r in mask.intermediate))
        for tower, mask in masks.items()
    }


def test_the_embedding_depends_on_the_last_token_and_on_all_patches() -> None:
    clip = random_clip(siglip_layout())
    tokens = NEW_PAIRS.tokens_NT[:8].clone()
    images = NEW_PAIRS.images_NCHW[:8].clone().requires_grad_()
    padding_differs = tokens.clone()
    padding_differs[:, -1] = 7

    assert not torch.allclose(clip.encode_text(tokens), clip.encode_text(padding_differs), atol=1e-2)
    [gradient] = torch.autograd.grad(clip.encode_image(images).square().sum(), images)
    patches = gradient.unfold(2, 8, 8).unfold(3, 8, 8).abs().sum(dim=(1, 4, 5))
    assert (patches > 0).all()


def test_a_folded_model_computes_what_the_masked_one_does() -> None:
    clip = random_clip(siglip_layout())
    masks = some_units(clip)

    small = model_of(*fold(clip.state_dict(), clip.layout, masks))

    assert small.layout.image.width < 32
    assert small.layout.image.pool == clip.layout.image.pool
    image = clip.encode_image(NEW_PAIRS.images_NCHW, masks["image"])
    text = clip.encode_text(NEW_PAIRS.tokens_NT, masks["text"])
    torch.testing.assert_close(
        embeddings(small, NEW_PAIRS), torch.cat([normalized(image), normalized(text)]), atol=1e-5, rtol=0
    )


def test_a_model_on_its_principal_axes_computes_the_same() -> None:
    clip = random_clip(siglip_layout())

    rotated = model_of(on_principal_axes(clip, PAIRS, TOWERS), clip.layout)

    assert not torch.allclose(rotated.positional_embedding, clip.positional_embedding, atol=0.1)
    torch.testing.assert_close(embeddings(rotated, NEW_PAIRS), embeddings(clip, NEW_PAIRS), atol=2e-4, rtol=0)


def test_units_without_effect_are_not_inherited() -> None:
    clip = random_clip(siglip_layout())
    dead_units, dead_heads = [0, 3, *range(20, 34)], [0, 2]
    blocks = [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]
    pool = clip.visual.pool
    for output, units, width in [
        *((block.mlp.c_proj, dead_units, 1) for block in blocks), (pool.mlp.c_proj, dead_units, 1),
        *((block.attn.out_proj, dead_heads, 8) for block in blocks), (pool.out_proj, dead_heads, 8),
    ]:  # fmt: skip
        for unit in units:
            output.weight[:, width * unit : width * unit + width] = 0

    cut = by_importance(siglip_layout(heads=2, mlp=32), clip, PAIRS)

    assert distance(cut, clip, NEW_PAIRS) < 1e-3


@pytest.mark.parametrize(("width", "layers", "heads", "mlp"), [(24, 3, 3, 36), (32, 2, 4, 48), (16, 2, 2, 24)])
def test_by_importance_a_student_is_nearer_to_its_parent(width: int, layers: int, heads: int, mlp: int) -> None:
    clip, student = random_clip(siglip_layout()), siglip_layout(width, layers, heads, mlp)

    found, first = by_importance(student, clip, PAIRS), leading(student, clip)

    assert distance(found, clip, NEW_PAIRS) < 0.7 * distance(first, clip, NEW_PAIRS)


def test_a_student_of_its_parents_size_is_its_parent() -> None:
    clip = random_clip(siglip_layout())

    torch.testing.assert_close(embeddings(leading(clip.layout, clip), NEW_PAIRS), embeddings(clip, NEW_PAIRS))


def test_masks_keep_the_pooling() -> None:
    clip = random_clip(siglip_layout())
    masks = {tower: mask.binary() for tower, mask in some_units(clip).items()}

    cut = cut_by_masks(clip, masks, calibration_of(clip, PAIRS))

    assert cut.layout.image.pool == clip.layout.image.pool
    assert cut.layout.image.heads == [int(row.sum()) for row in masks["image"].heads]
    folded = model_of(*fold(clip.state_dict(), clip.layout, masks))
    assert distance(cut, clip, NEW_PAIRS) < 0.8 * distance(folded, clip, NEW_PAIRS)


class TestSizes:
    def test_a_spec_gives_the_pooling_the_sizes_of_a_block(self) -> None:
        student = StudentSpec(image=ImageTower(layers=2, width=16), text=TextTower(layers=1, width=16))

        layout = resolve_layout(student, siglip_layout())

        assert isinstance(layout, Layout)
        assert layout.image.pool is not None
        assert (layout.image.pool.width, layout.image.pool.heads, layout.image.pool.mlp) == (32, 2, 24)
        assert layout.text.bidirectional
        assert list(inheritance_problems(layout, siglip_layout())) == []

    @pytest.mark.parametrize(("student", "parent"), [(PRESETS["TinyCLIP-ViT-8M-16-Text-3M"], siglip_layout()),
                                                     (siglip_layout(), vit_layout())])  # fmt: skip
    def test_towers_of_the_other_kind_are_refused(self, student: Layout, parent: Layout) -> None:
        [problem, *_] = inheritance_problems(student, parent)

        assert problem.field == "image"
        assert "cannot inherit from each other" in problem.message

    def test_a_shorter_context_is_refused(self) -> None:
        student = resolve_layout(StudentSpec(text=TextTower(context_length=5)), siglip_layout())
        assert isinstance(student, Layout)

        [problem] = inheritance_problems(student, siglip_layout())

        assert (problem.field, problem.value) == ("text.context_length", 5)
        assert "needs the 10 tokens" in problem.message
