"""A rotated model has the same similarities in other coordinates, whatever its image tower is."""

import pytest
import torch
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.model.rotation import rotated_model
from tinyclip_workers.model.towers import Clip, Model

from tests.workers.auto_stages import TEACHER
from tests.workers.inheritance.towers import random_clip, siglip_layout
from tests.workers.models import tiny_layout, tiny_model

AXES = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(7))).Q


def own(layout: Layout) -> Model:
    torch.manual_seed(0)
    return Clip(layout).eval()


def like_siglip() -> Model:
    layout = siglip_layout()
    text = layout.text.model_copy(update={"vocab_size": 49408})
    return random_clip(layout.model_copy(update={"embed_dim": 16, "text": text}))


@pytest.mark.parametrize("model", [tiny_model(), tiny_model(layout=TEACHER), own(TEACHER), own(tiny_layout()), like_siglip()])
def test_embeddings_are_multiplied_by_the_axes_and_can_be_turned_back(model: Model) -> None:
    images, tokens = torch.randn(2, 3, 32, 32), torch.tensor([[49406, 5, 49407, 0], [49406, 7, 8, 49407]])
    tokens = torch.nn.functional.pad(tokens, (0, model.positional_embedding.shape[0] - 4))

    rotated = rotated_model(model, AXES)

    with torch.no_grad():
        for one, other in (
            (model.encode_image(images), rotated.encode_image(images)),
            (model.encode_text(tokens), rotated.encode_text(tokens)),
        ):
            torch.testing.assert_close(other, one @ AXES, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(other @ AXES.T, one, atol=1e-5, rtol=1e-4)
