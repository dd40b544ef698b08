"""State dicts in files: whole, compact, torn."""

from pathlib import Path
from typing import IO, Any

import pytest
import torch
from tinyclip.artifacts.store import ArtifactsStore
from tinyclip_workers.model.files import weights
from tinyclip_workers.model.files.headers import WeightsError
from tinyclip_workers.model.files.weights import (
    EMBEDDING,
    file_digest,
    load_state_dict,
    quantized_state,
    read_header,
    save_compact,
)
from tinyclip_workers.model.summary import state_shapes

from tests.workers.models import tiny_layout, tiny_model, write_weights

USED = [0, 7, 49406, 49407]


def test_a_whole_file_gives_back_every_tensor(tmp_path: Path) -> None:
    state = tiny_model().state_dict()

    write_weights(ArtifactsStore(str(tmp_path)), "w.safetensors", state)
    loaded = load_state_dict(str(tmp_path / "w.safetensors"))

    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_compact_file_is_small_and_comes_back_with_the_used_rows(tmp_path: Path) -> None:
    state = tiny_model().state_dict()

    save_compact(ArtifactsStore(str(tmp_path)), "w.safetensors", state, USED)
    loaded = load_state_dict(str(tmp_path / "w.safetensors"))

    whole_bytes = sum(t.numel() * t.element_size() for t in state.values())
    assert (tmp_path / "w.safetensors").stat().st_size < whole_bytes / 5
    assert loaded.keys() == state.keys()
    for name in state.keys() - {EMBEDDING}:
        assert loaded[name].dtype == state[name].dtype
        torch.testing.assert_close(loaded[name], state[name], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(loaded[EMBEDDING][USED], state[EMBEDDING][USED], rtol=1e-3, atol=1e-6)
    assert loaded[EMBEDDING].count_nonzero() == len(USED) * 16


def test_an_int8_embedding_comes_back_within_half_a_step_of_each_row(tmp_path: Path) -> None:
    state = tiny_model().state_dict()
    state[EMBEDDING] = state[EMBEDDING][:50] * torch.arange(50)[:, None]  # the first row is zero

    write_weights(ArtifactsStore(str(tmp_path)), "w.safetensors", quantized_state(state))
    loaded = load_state_dict(str(tmp_path / "w.safetensors"))

    assert loaded.keys() == state.keys()
    assert read_header(str(tmp_path / "w.safetensors")).shapes[EMBEDDING] == (50, 16)
    steps = state[EMBEDDING].abs().amax(dim=1, keepdim=True) / 127
    assert ((loaded[EMBEDDING] - state[EMBEDDING]).abs() <= 0.501 * steps).all()
    assert all(torch.equal(loaded[name], state[name]) for name in state.keys() - {EMBEDDING})


def test_an_int8_embedding_needs_a_scale_for_each_row(tmp_path: Path) -> None:
    whole = quantized_state(tiny_model().state_dict())
    without = {name: tensor for name, tensor in whole.items() if name != "token_embedding.scales"}
    short = {**whole, "token_embedding.scales": whole["token_embedding.scales"][:7].clone()}

    for state, reason in ((without, r"values must be F16"), (short, r"49408 rows do not fit")):
        write_weights(ArtifactsStore(str(tmp_path)), "w.safetensors", state)
        with pytest.raises(WeightsError, match=reason):
            load_state_dict(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("compact", [False, True])
def test_the_header_has_the_shapes_without_the_data(tmp_path: Path, compact: bool) -> None:
    store, state = ArtifactsStore(str(tmp_path)), tiny_model().state_dict()
    if compact:
        save_compact(store, "w.safetensors", state, USED)
    else:
        write_weights(store, "w.safetensors", state)

    header = read_header(str(tmp_path / "w.safetensors"))

    assert header.shapes == state_shapes(tiny_layout())
    assert header.bytes == (tmp_path / "w.safetensors").stat().st_size


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(ArtifactsStore(str(tmp_path)), path.name, tiny_model().state_dict())
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(WeightsError, match=r"w\.safetensors.*again"):
        read_header(str(path))
    with pytest.raises(WeightsError, match=r"w\.safetensors has .* bytes, it should have .* again"):
        load_state_dict(str(path))


def test_a_link_that_is_replaced_after_the_check_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("allowed", 1.0), ("secret", 2.0)):
        write_weights(ArtifactsStore(str(tmp_path)), name, {"a": torch.full((3,), value)})
    link, read_entries = tmp_path / "w.safetensors", weights.read_entries
    link.symlink_to("allowed")

    def replace_link(file: IO[bytes], uri: str) -> Any:
        found = read_entries(file, uri)
        link.unlink()
        link.symlink_to("secret")
        return found

    monkeypatch.setattr(weights, "read_entries", replace_link)

    assert load_state_dict(str(link))["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("content", [b"", b"short", b"PK\x03\x04 this is a zip file, perhaps of pickles"])
def test_what_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_header(str(path))


def test_halves_that_overflow_are_refused_by_name(tmp_path: Path) -> None:
    state = tiny_model().state_dict()
    state["ln_final.weight"] = state["ln_final.weight"] * 1e6

    with pytest.raises(WeightsError, match=r"ln_final\.weight"):
        save_compact(ArtifactsStore(str(tmp_path)), "w.safetensors", state, USED)


def test_a_token_outside_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 to 49407"):
        save_compact(ArtifactsStore(str(tmp_path)), "w.safetensors", tiny_model().state_dict(), [1, 49408])


def test_weights_are_read_from_any_file_system() -> None:
    state = tiny_model().state_dict()
    write_weights(ArtifactsStore("memory://weights"), "w.safetensors", state)

    assert torch.equal(load_state_dict("memory://weights/w.safetensors")["ln_final.bias"], state["ln_final.bias"])
    assert len(file_digest("memory://weights/w.safetensors")) == 64
