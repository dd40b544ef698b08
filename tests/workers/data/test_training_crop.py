"""The training crop is torchvision's, drawn with the stream's generator."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from tinyclip_workers.data.crops import Crop, random_crop, upright_size
from torchvision.transforms import RandomResizedCrop

from tests.workers.students import random_image

DRAWS = 2000
RATIOS = [3 / 4, 4 / 3]
SIZES = [(64, 64), (72, 72), (640, 427), (300, 400), (120, 300), (500, 60), (3, 2)]
SCALES = [(0.9, 1.0), (0.5, 1.0), (0.08, 1.0)]


@cache
def own_crops(size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """Left, top, width and height of many crops."""
    rng = np.random.default_rng(0)
    return np.array([random_crop(*size, scale, rng) for _ in range(DRAWS)])


@cache
def torchvision_crops(size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """The same by torchvision."""
    image = torch.empty(1, size[1], size[0], device="meta")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        crops = [RandomResizedCrop.get_params(image, list(scale), RATIOS) for _ in range(DRAWS)]
    return np.array([(left, top, width, height) for top, left, height, width in crops])


def figures(crops: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Per crop: relative area, logarithm of the aspect ratio, relative position of its centre."""
    left, top, width, height = crops.T.astype(float)
    middle = [(left + width / 2) / size[0], (top + height / 2) / size[1]]
    return np.stack([width * height / (size[0] * size[1]), np.log(width / height), *middle])


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
class TestDistribution:
    def test_crops_have_torchvisions_means_and_spreads(self, size: tuple[int, int], scale: tuple[float, float]) -> None:
        own, theirs = figures(own_crops(size, scale), size), figures(torchvision_crops(size, scale), size)

        within = 4 * np.sqrt((own.var(axis=1) + theirs.var(axis=1)) / DRAWS) + 1e-12
        assert (np.abs(own.mean(axis=1) - theirs.mean(axis=1)) <= within).all()
        np.testing.assert_allclose(own.std(axis=1), theirs.std(axis=1), rtol=0.1, atol=1e-12)

    def test_as_many_crops_are_smaller_than_requested(self, size: tuple[int, int], scale: tuple[float, float]) -> None:
        own, theirs = ((figures(of(size, scale), size)[0] < scale[0]).mean() for of in (own_crops, torchvision_crops))

        assert own == pytest.approx(theirs, abs=4 * np.sqrt(0.5 * theirs * (1 - theirs) / DRAWS) + 0.004)

    def test_crops_lie_within_the_image(self, size: tuple[int, int], scale: tuple[float, float]) -> None:
        left, top, width, height = own_crops(size, scale).T

        assert min(left.min(), top.min()) >= 0
        assert min(width.min(), height.min()) >= 1
        assert (left + width).max() <= size[0]
        assert (top + height).max() <= size[1]


def test_few_crops_of_a_square_image_are_smaller_than_requested() -> None:
    areas = figures(own_crops((72, 72), (0.9, 1.0)), (72, 72))[0]

    assert (areas < 0.9).mean() < 0.05
    assert areas.min() > 0.88


class TestFallback:
    """Sizes into which no crop of nine tenths of the area fits."""

    @pytest.mark.parametrize(
        ("size", "crop"),
        [
            ((300, 90), (90, 0, 120, 90)),
            ((90, 300), (0, 90, 90, 120)),
            ((1_000_000, 1), (499_999, 0, 1, 1)),
            ((1, 1_000_000), (0, 499_999, 1, 1)),
        ],
        ids=str,
    )
    def test_the_largest_central_crop_of_the_nearest_ratio_is_used(
        self, size: tuple[int, int], crop: tuple[int, int, int, int]
    ) -> None:
        assert random_crop(*size, (0.9, 1.0), np.random.default_rng(0)) == crop
        assert RandomResizedCrop.get_params(torch.empty(1, *size[::-1], device="meta"), [0.9, 1.0], RATIOS) == (
            crop[1], crop[0], crop[3], crop[2]
        )  # fmt: skip

    def test_it_is_the_whole_image_where_its_ratio_is_allowed(self) -> None:
        # A share above 1 never fits.
        assert random_crop(40, 36, (1.5, 2.0), np.random.default_rng(0)) == (0, 0, 40, 36)


class TestBeforeTurning:
    @pytest.mark.parametrize("turn", [None, *Image.Transpose])
    def test_the_stored_part_turned_is_the_part_of_the_upright_image(self, turn: Image.Transpose | None) -> None:
        stored = random_image(2, (9, 7))
        upright = stored if turn is None else stored.transpose(turn)
        crop = Crop(1, 2, 5, 3)

        part = stored.crop(crop.before(turn, *stored.size).box)

        assert upright_size(*stored.size, turn) == upright.size
        turned = part if turn is None else part.transpose(turn)
        np.testing.assert_array_equal(turned, upright.crop(crop.box))
