"""Masked forward passes, their gradients, and the folded models, against the reference."""

import pytest
import torch
from tinyclip_workers.model.fold import fold
from tinyclip_workers.model.masked import MaskedTowers
from tinyclip_workers.model.masks import Mask
from tinyclip_workers.model.sparsity import Constraint
from tinyclip_workers.model.towers import Clip
from torch import Tensor, nn

from tests.workers.layouts import open_clip_model
from tests.workers.masked_case import CASES, DOCUMENT, LAYOUT, TOLERANCE, TOWERS, full_student, inputs, masks_of, noise_of
from tests.workers.parity import Arrays, Near, assert_near


def features(model: Clip, image_mask: Mask | None = None, text_mask: Mask | None = None) -> dict[str, Tensor]:
    images, tokens = inputs()
    return {"image": model.encode_image(images, image_mask), "text": model.encode_text(tokens, text_mask)}


def evaluation_masks(case: str) -> dict[str, Mask]:
    return {tower: masks_of(case, tower).deterministic() for tower in TOWERS}


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_without_masks_the_towers_are_open_clips_in_names_and_numbers(quick_gelu: bool) -> None:
    weights = full_student().state_dict()
    ours, theirs = Clip(LAYOUT.model_copy(update={"quick_gelu": quick_gelu})), open_clip_model(DOCUMENT["config"], quick_gelu)
    for model in (ours, theirs):
        model.load_state_dict(weights, strict=True)
    images, tokens = inputs()

    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert_near(ours.encode_image(images), theirs.encode_image(images), TOLERANCE, "image")
    assert_near(ours.encode_text(tokens), theirs.encode_text(tokens), TOLERANCE, "text")


@pytest.mark.parametrize("case", CASES)
def test_evaluation_features_are_those_of_the_reference(case: str, near: Near) -> None:
    masks = evaluation_masks(case)

    found = features(full_student(), masks["image"], masks["text"])

    for tower in TOWERS:
        near(found[tower], Arrays("mask.npz"), f"{case}/eval_{tower}", TOLERANCE)


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}/eval_act/image_ln_pre" in Arrays("mask.npz")])
def test_every_activation_is_that_of_the_reference(case: str) -> None:
    model, masks, found = full_student(), evaluation_masks(case), dict[str, Tensor]()

    def record(module: nn.Module, name: str) -> None:
        module.register_forward_hook(lambda _, __, output: found.update({name: output}))

    record(model.visual.get_submodule("ln_pre"), "image_ln_pre")
    record(model.visual.get_submodule("ln_post"), "image_ln_post")
    record(model.ln_final, "text_ln_final")
    for tower, transformer in (("image", model.visual.get_submodule("transformer")), ("text", model.transformer)):
        for layer, block in enumerate(transformer.get_submodule("resblocks").children()):
            record(block, f"{tower}_block{layer}")
    features(model, masks["image"], masks["text"])

    for name, theirs in Arrays("mask.npz").under(f"{case}/eval_act/").items():
        theirs = theirs.transpose(0, 1) if "block" in name else theirs
        if name.startswith("text"):  # ours stops at the longest text
            theirs = theirs[:, : found[name].shape[1]]
        assert_near(found[name], theirs, TOLERANCE, name)


@pytest.mark.parametrize("case", CASES)
def test_training_features_and_gradients_are_those_of_the_reference(case: str, near: Near) -> None:
    model, arrays = full_student(), Arrays("mask.npz", f"{case}/")
    masks = {tower: masks_of(case, tower) for tower in TOWERS}

    found = features(model, *(masks[tower].sample(noise_of(case, tower)) for tower in TOWERS))
    sum((found[tower] * arrays[f"R_{tower}"]).sum() for tower in TOWERS).backward()  # type: ignore[union-attr]

    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for tower in TOWERS:
        near(found[tower], arrays, f"train_{tower}", TOLERANCE)
        gradients |= {f"{tower}_loga_{group}": loga.grad for group, loga in masks[tower].loga().items()}
    recorded = [name for name in arrays.names() if name.startswith("train_grad/")] or ["train_grad/visual.proj"]
    for name in recorded:
        gradient = gradients[name.removeprefix("train_grad/")]
        assert gradient is not None, name
        near(gradient, arrays, name, TOLERANCE, flat="loga" in name)


@pytest.mark.parametrize("case", CASES)
def test_the_folded_model_computes_what_the_masked_one_did(case: str, near: Near) -> None:
    state, layout = fold(full_student().state_dict(), LAYOUT, evaluation_masks(case))
    small = Clip(layout)
    small.load_state_dict(state, strict=True)

    found = features(small)

    measured = DOCUMENT["cases"][case]["layout"]
    assert (layout.image.width, layout.text.width) == (measured["vision_width"], measured["text_width"])
    for tower, blocks in ((layout.image, measured["vision"]), (layout.text, measured["text"])):
        assert tower.heads is not None
        assert tower.mlp is not None
        assert [{"heads": h, "mlp": m} for h, m in zip(tower.heads, tower.mlp, strict=True)] == blocks
    for tower_name in TOWERS:
        near(found[tower_name], Arrays("mask.npz"), f"{case}/eval_{tower_name}", TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_with_parity_the_fold_has_the_faults_of_the_reference(case: str, near: Near) -> None:
    state, layout = fold(full_student().state_dict(), LAYOUT, evaluation_masks(case), parity=True)
    small = Clip(layout)
    small.load_state_dict(state, strict=True)

    found = features(small)

    for tower in TOWERS:
        near(found[tower], Arrays("mask.npz"), f"{case}/pruned_{tower}", TOLERANCE)
    theirs = Arrays("prune.npz").under(f"{case}/")
    for name in state.keys() & theirs.keys():
        assert_near(state[name], theirs[name], TOLERANCE, name)
    if theirs:
        assert_only_dead_parts_differ(state, theirs)


def assert_only_dead_parts_differ(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Without heads we keep a zero bias, the reference nothing; without MLP units it keeps an empty MLP and its LayerNorm."""
    for name in ours.keys() - theirs.keys():
        assert name.endswith("attn.out_proj.bias"), name
        assert not ours[name].any()
    for name in theirs.keys() - ours.keys():
        assert theirs[name].numel() == 0 or ".ln_2." in name, name


@pytest.mark.parametrize("tower", TOWERS)
def test_one_tower_alone_can_be_masked_and_folded(tower: str) -> None:
    mask = evaluation_masks(CASES[0])[tower]
    model = full_student()

    state, layout = fold(model.state_dict(), LAYOUT, {tower: mask})
    small = Clip(layout)
    small.load_state_dict(state, strict=True)

    masked = features(model, **{f"{tower}_mask": mask})
    for name, found in features(small).items():
        torch.testing.assert_close(found, masked[name], rtol=1e-5, atol=1e-5)


def test_masked_towers_train_under_bf16_autocast_with_fp32_embeddings() -> None:
    towers = MaskedTowers(full_student(), LAYOUT, ("image", "text"), Constraint(0.0, 0.5, 0))
    plain = towers(*inputs(), towers.noise(torch.Generator().manual_seed(0)))

    with torch.autocast("cpu", torch.bfloat16):
        image_BD, text_BD, *_ = towers(*inputs(), towers.noise(torch.Generator().manual_seed(0)))
    (image_BD @ text_BD.T).logsumexp(1).sum().backward()

    for found, wanted in ((image_BD, plain[0]), (text_BD, plain[1])):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)
    gradients = [parameter.grad for name, parameter in towers.named_parameters() if "lambda" not in name and "scale" not in name]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
