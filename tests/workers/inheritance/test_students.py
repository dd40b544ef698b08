"""Students by importance: what is redundant is lost without loss, and what is lost is compensated as far as it can be."""

from copy import deepcopy

import pytest
import torch
from tinyclip_workers.inheritance.depth import resnet_blocks_to_keep
from tinyclip_workers.inheritance.importance import unit_importance
from tinyclip_workers.inheritance.leading import ImpossibleInheritance, inherit_leading
from tinyclip_workers.inheritance.resnets import channel_importance
from tinyclip_workers.inheritance.shape import masks_of_size
from tinyclip_workers.inheritance.students import (
    Calibration,
    cut_by_masks,
    embedding_targets,
    inherit_by_importance,
    on_principal_axes,
)
from tinyclip_workers.model.masked import full_mask, size_of
from tinyclip_workers.model.masks import Mask
from tinyclip_workers.model.towers import Clip, normalized

from tests.workers.inheritance.towers import (
    by_importance,
    calibration_of,
    distance,
    embeddings,
    model_of,
    random_clip,
    random_pairs,
    random_resnet,
    resnet_layout,
    vit_layout,
)

PAIRS, NEW_PAIRS = random_pairs(), random_pairs(seed=2)


def blocks_of(clip: Clip) -> list[torch.nn.Module]:
    return [*clip.visual.transformer.resblocks, *clip.transformer.resblocks]


def change_without(visual: torch.nn.Module, layer: str, block: int, clip: Clip) -> float:
    """Return the mean squared distance of a clip's image embeddings to those of a ResNet without one of its blocks."""
    shorter = deepcopy(visual)
    del shorter.get_submodule(layer)[block]
    found, wanted = (normalized(model(PAIRS.images_NCHW)) for model in (shorter, clip.visual))
    return float((found - wanted).square().sum(1).mean())


def narrowed(clip: Clip, rank: int) -> None:
    """Let everything that writes to the residual streams write to the same few directions, and no others."""
    width = clip.layout.text.width
    basis = torch.linalg.qr(torch.randn(width, rank, generator=torch.Generator().manual_seed(5)))[0]
    onto = basis @ basis.T
    for block in blocks_of(clip):
        for output in (block.attn.out_proj, block.mlp.c_proj):
            output.weight.copy_(onto @ output.weight)
            output.bias.copy_(onto @ output.bias)
    clip.token_embedding.weight.copy_(clip.token_embedding.weight @ onto)
    clip.positional_embedding.copy_(clip.positional_embedding @ onto)


class TestPrincipalAxes:
    def test_a_model_on_its_principal_axes_computes_the_same(self) -> None:
        clip = random_clip(vit_layout())
        clip.visual.ln_pre.weight.fill_(0.8)  # one factor: others are moved before the LayerNorm, which changes lengths a little

        rotated = model_of(on_principal_axes(clip, PAIRS, ["image", "text"]), clip.layout)

        assert not torch.allclose(rotated.positional_embedding, clip.positional_embedding, atol=0.1)
        torch.testing.assert_close(embeddings(rotated, NEW_PAIRS), embeddings(clip, NEW_PAIRS), atol=2e-4, rtol=0)

    def test_weights_of_the_first_layer_norm_are_moved_at_a_small_loss(self) -> None:
        clip = random_clip(vit_layout())

        rotated = model_of(on_principal_axes(clip, PAIRS, ["image", "text"]), clip.layout)

        assert distance(rotated, clip, NEW_PAIRS) < 2e-3

    def test_a_stream_of_few_directions_fits_into_as_many_channels_and_one(self) -> None:
        clip = random_clip(vit_layout(width=32))
        narrowed(clip, rank=14)
        text = clip.layout.text.model_copy(update={"width": 16})
        student = clip.layout.model_copy(update={"text": text})

        exact, leading = by_importance(student, clip, PAIRS), Clip(student).eval()
        leading.load_state_dict(inherit_leading(leading, clip.state_dict(), student, clip.layout))

        assert distance(exact, clip, NEW_PAIRS) < 0.005 < 0.1 < distance(leading, clip, NEW_PAIRS)


class TestUnits:
    def test_units_without_effect_have_no_importance_and_are_not_inherited(self) -> None:
        clip = random_clip(vit_layout())
        dead_units, dead_heads = [0, 3, *range(20, 34)], [0, 2]
        for block in blocks_of(clip):
            block.mlp.c_proj.weight[:, dead_units] = 0
            for head in dead_heads:
                block.attn.out_proj.weight[:, 8 * head : 8 * head + 8] = 0
        scores = unit_importance(clip, PAIRS)
        student = vit_layout(heads=2, mlp=32)

        cut = by_importance(student, clip, PAIRS)

        for mask in scores.values():
            assert all(set((row == 0).nonzero().flatten().tolist()) == set(dead_units) for row in mask.intermediate)
            assert all(set((row == 0).nonzero().flatten().tolist()) == set(dead_heads) for row in mask.heads)
        assert distance(cut, clip, NEW_PAIRS) < 1e-3  # the fit is one to some pairs, judged by others

    def test_a_model_whose_blocks_have_lost_their_heads_or_units_is_cut_further(self) -> None:
        layout = vit_layout()
        text = layout.text.model_copy(update={"heads": [4, 0, 2], "mlp": [48, 16, 0]})
        clip = random_clip(layout.model_copy(update={"text": text}))

        scores = unit_importance(clip, PAIRS)
        masks = {tower: masks_of_size({tower: scores[tower]}, {tower: size}, 0.5)[tower] for tower, size in (
            ("image", size_of(clip.layout.image)), ("text", size_of(clip.layout.text)),
        )}  # fmt: skip
        cut = cut_by_masks(clip, masks, calibration_of(clip, PAIRS))

        assert [len(row) for row in scores["text"].leaves()] == [32, 4, 0, 2, 48, 16, 0]
        assert (cut.layout.text.heads[1], cut.layout.text.mlp[2]) == (0, 0)
        assert 0 < distance(cut, clip, NEW_PAIRS) < 1

    def test_a_copy_of_a_unit_is_replaced_by_the_one_that_stays(self) -> None:
        clip = random_clip(vit_layout())
        for block in blocks_of(clip):
            for tensor in (block.mlp.c_fc.weight, block.mlp.c_fc.bias):
                tensor[24:] = tensor[:24]
        masks = {tower: full_mask(clip.layout, tower) for tower in ("image", "text")}
        first = torch.cat([torch.ones(24), torch.zeros(24)])
        halves = {tower: Mask(mask.hidden, mask.heads, (first,) * 3) for tower, mask in masks.items()}

        cut = cut_by_masks(clip, halves, calibration_of(clip, PAIRS))

        assert cut.layout.image.mlp == cut.layout.text.mlp == [24, 24, 24]
        assert distance(cut, clip, NEW_PAIRS) < 0.02

    def test_factors_of_masks_do_not_matter_only_what_they_keep(self) -> None:
        clip, calibration = random_clip(vit_layout()), calibration_of(random_clip(vit_layout()), PAIRS)
        full = full_mask(clip.layout, "text")
        soft = Mask(0.3 * full.hidden, tuple(0.5 * row for row in full.heads), tuple(0.7 * row for row in full.intermediate))

        one, other = (cut_by_masks(clip, {"text": mask}, calibration).state_dict() for mask in (full, soft))

        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    def test_the_same_pairs_give_the_same_student(self) -> None:
        student, clip = vit_layout(width=24, layers=2, heads=3, mlp=20), random_clip(vit_layout())

        one, other = by_importance(student, clip, PAIRS).state_dict(), by_importance(student, clip, PAIRS).state_dict()

        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    def test_the_parent_is_not_changed(self) -> None:
        clip = random_clip(vit_layout())
        before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}

        by_importance(vit_layout(width=24, layers=2, heads=3, mlp=20), clip, PAIRS)

        assert all(torch.equal(tensor, before[name]) for name, tensor in clip.state_dict().items())


class TestBlocks:
    @pytest.mark.parametrize("removed", [0, 1, 2])
    def test_a_block_that_changes_nothing_is_the_one_that_is_not_inherited(self, removed: int) -> None:
        clip = random_clip(vit_layout())
        for tower in (clip.visual.transformer, clip.transformer):
            for output in (tower.resblocks[removed].attn.out_proj, tower.resblocks[removed].mlp.c_proj):
                output.weight.zero_()
                output.bias.zero_()

        cut = by_importance(vit_layout(layers=2), clip, PAIRS)

        assert distance(cut, clip, NEW_PAIRS) < 0.01  # without any other block: about 0.1


class TestBlocksOfResNets:
    @pytest.mark.parametrize("removed", [1, 2])
    def test_a_block_that_changes_nothing_is_the_one_that_is_not_inherited(self, removed: int) -> None:
        clip = random_resnet(resnet_layout(layers=[1, 3, 1, 2]), PAIRS)
        last = clip.visual.layer2[removed].bn3
        last.weight.zero_()
        last.bias.zero_()

        cut = by_importance(resnet_layout(layers=[1, 2, 1, 2]), clip, PAIRS)

        inherited, own = clip.visual.layer2[3 - removed], cut.visual.layer2[1]
        for name in ("conv1.weight", "conv2.weight", "conv3.weight"):  # those of other blocks differ by about 0.1
            torch.testing.assert_close(own.get_parameter(name), inherited.get_parameter(name), atol=1e-3, rtol=0)
        assert distance(cut, clip, NEW_PAIRS) < 0.02

    @torch.no_grad()
    def test_of_each_stage_the_blocks_are_removed_without_which_embeddings_change_least(self) -> None:
        """Against models of which blocks were deleted."""
        clip, layers = random_resnet(resnet_layout(layers=[1, 4, 1, 3]), PAIRS), [1, 2, 1, 2]
        wanted, shorter = [], deepcopy(clip.visual)
        for name, count in zip(("layer1", "layer2", "layer3", "layer4"), layers, strict=True):
            kept = list(range(len(shorter.get_submodule(name))))
            while len(kept) > count:
                removed = min(range(1, len(kept)), key=lambda block: change_without(shorter, name, block, clip))
                del kept[removed], shorter.get_submodule(name)[removed]
            wanted.append(kept)

        found = resnet_blocks_to_keep(clip.visual, PAIRS.images(), layers)

        evenly_spaced = [[0], [0, 2], [0], [0, 1]]
        assert found == wanted != evenly_spaced

    def test_the_first_block_of_a_stage_stays_even_if_it_changes_least(self) -> None:
        clip = random_resnet(resnet_layout(layers=[1, 3, 1, 1]), PAIRS)
        for block in clip.visual.layer2:
            block.bn3.weight.zero_()

        found = resnet_blocks_to_keep(clip.visual, PAIRS.images(), [1, 1, 1, 1])

        assert found == [[0], [0], [0], [0]]


class TestEmbeddings:
    def test_shorter_embeddings_preserve_the_similarities_of_the_longer_ones(self) -> None:
        clip = random_clip(vit_layout())
        student = clip.layout.model_copy(update={"embed_dim": 6})
        targets = embedding_targets(clip, PAIRS, 6)

        cut = model_of(inherit_by_importance(student, clip, Calibration(PAIRS, targets)), student)

        found, wanted = (embeddings(model, NEW_PAIRS) for model in (cut, clip))
        leading = torch.nn.functional.normalize(wanted[:, :6], dim=1)
        error, without = ((one @ one.T - wanted @ wanted.T).square().mean() for one in (found, leading))
        assert error < without / 2

    def test_a_student_larger_than_its_parent_is_refused(self) -> None:
        with pytest.raises(ImpossibleInheritance, match=r"image\.width"):
            by_importance(vit_layout(width=40), random_clip(vit_layout()), PAIRS)


class TestResNets:
    def test_channels_without_effect_are_not_inherited(self) -> None:
        clip = random_clip(resnet_layout(width=8))
        for module in clip.visual.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # every second channel is 0 behind its ReLU
                module.weight[::2] = 0
                module.bias[::2] = 0
        student = resnet_layout(width=4)

        cut = by_importance(student, clip, PAIRS)

        scores = channel_importance(clip, PAIRS)
        assert all((score[::2] == 0).all() for group, score in scores.items() if group != "heads")
        assert distance(cut, clip, NEW_PAIRS) < 0.02

    def test_batch_norms_of_weight_0_with_which_training_starts_are_no_obstacle(self) -> None:
        clip, student = random_clip(resnet_layout(width=8)), resnet_layout(width=6)
        for name, module in clip.visual.named_modules():
            if name.endswith("bn3") and "." in name:
                module.weight.zero_()

        cut = by_importance(student, clip, PAIRS)

        assert all(tensor.isfinite().all() for tensor in cut.state_dict().values())
        assert distance(cut, clip, NEW_PAIRS) < 0.2

    def test_a_student_of_the_parents_size_computes_the_same(self) -> None:
        clip = random_clip(resnet_layout())

        cut = by_importance(clip.layout, clip, PAIRS)

        assert distance(cut, clip, NEW_PAIRS) < 0.005

    def test_batch_norms_have_the_statistics_of_what_they_read(self) -> None:
        clip, student = random_clip(resnet_layout(width=8)), resnet_layout(width=6)

        cut = by_importance(student, clip, PAIRS)
        in_evaluation = cut.encode_image(PAIRS.images_NCHW)
        cut.visual.train()

        torch.testing.assert_close(cut.encode_image(PAIRS.images_NCHW), in_evaluation, atol=0.05, rtol=0.05)

    def test_the_fit_brings_a_cut_student_much_nearer(self) -> None:
        clip, student = random_clip(resnet_layout(width=8)), resnet_layout(width=6)
        leading = Clip(student).eval()
        leading.load_state_dict(inherit_leading(leading, clip.state_dict(), student, clip.layout))

        assert distance(by_importance(student, clip, PAIRS), clip, NEW_PAIRS) < distance(leading, clip, NEW_PAIRS) / 3
