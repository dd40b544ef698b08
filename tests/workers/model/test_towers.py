"""Trimmed texts have the embeddings of whole contexts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tinyclip_workers.model.towers import encode_text

from tests.workers.layouts import Config, open_clip_model

CONFIG: Config = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 40, "width": 16, "heads": 2, "layers": 3},
}


def texts(lengths: list[int], context: int = 12) -> torch.Tensor:
    """Return random tokens up to the end-of-text token 39, then padding."""
    tokens = torch.zeros(len(lengths), context, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, 38, (length,))
        tokens[row, length - 1] = 39
    return tokens


@pytest.mark.parametrize("lengths", [[3, 5, 2], [12, 4], [2]])
def test_embeddings_and_gradients_are_those_of_the_whole_context(lengths: list[int]) -> None:
    torch.manual_seed(0)
    model, tokens = open_clip_model(CONFIG).double(), texts(lengths)

    whole = model.encode_text(tokens)
    whole.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    trimmed = encode_text(model, tokens)
    trimmed.square().sum().backward()

    torch.testing.assert_close(trimmed, whole)
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, gradients[name], msg=name)


def test_only_the_longest_text_of_the_batch_is_computed() -> None:
    torch.manual_seed(0)
    model = open_clip_model(CONFIG)
    seen: list[int] = []
    model.ln_final.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))

    encode_text(model, texts([3, 5, 2]))

    assert seen == [5]


def test_attention_is_causal_without_a_mask_that_would_prevent_a_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, attention, seen = open_clip_model(CONFIG), F.scaled_dot_product_attention, []

    def attend(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False) -> torch.Tensor:
        seen.append((attn_mask, is_causal))
        return attention(q, k, v, attn_mask, dropout_p, is_causal)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    encode_text(model, texts([3, 5]))

    assert seen == [(None, True)] * 3


def test_a_tower_that_reads_its_last_token_sees_the_whole_context() -> None:
    torch.manual_seed(0)
    model, tokens = open_clip_model(CONFIG), texts([3, 5])
    model.text_pool_type = "last"

    assert torch.equal(encode_text(model, tokens), model.encode_text(tokens))
