"""Parameters and bytes of a layout equal those of the model and of its files."""

from pathlib import Path

import pytest
from safetensors.torch import save
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip.schemas.layouts import Layout
from tinyclip_workers.costs.measuring import random_model
from tinyclip_workers.costs.sizes import sizes_of
from tinyclip_workers.model.files.weights import quantized_state, save_compact
from tinyclip_workers.model.summary import summarize

from tests.workers.costs.families import LAYOUTS


@pytest.mark.parametrize("layout", [pytest.param(layout, id=name) for name, layout in LAYOUTS.items()])
def test_bytes_are_those_of_the_files(layout: Layout, tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in random_model(layout).model.state_dict().items()}
    store = ArtifactsStore(str(tmp_path))
    save_compact(store, "compact.safetensors", state, range(layout.vocab_size))
    whole, rounded = len(save(state)), len(save(quantized_state(state), {"format": "pt"}))

    sizes = sizes_of(layout)

    assert sizes.bytes["fp32"] == whole
    assert sizes.bytes["bf16"] == len(store.read_bytes("compact.safetensors"))
    assert sizes.bytes["int8"] < sizes.bytes["bf16"] < sizes.bytes["fp32"]
    assert sizes.bytes["int8"] < rounded  # whose other tensors are in fp32
    summary = summarize(layout)
    assert (sizes.params, sizes.macs) == (summary.image_params + summary.text_params, summary.macs)
