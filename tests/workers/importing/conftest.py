"""Small models under the names of published architectures."""

import pytest
from open_clip.model import CLIP
from tinyclip_workers.model.layouts import PRESETS

from tests.workers.imports import LAYOUTS
from tests.workers.models import tiny_model


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register small architectures under the names of published and plain presets."""
    for name, layout in LAYOUTS.items():
        monkeypatch.setitem(PRESETS, f"TinyCLIP-{name}", layout)
        monkeypatch.setitem(PRESETS, f"plain-{name}", layout)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> CLIP:
    return tiny_model(3, LAYOUTS[getattr(request, "param", "vit")])
