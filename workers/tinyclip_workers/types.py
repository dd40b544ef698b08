"""Type aliases that several packages share."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB images, (…, height, width, 3)."""

Matrix = npt.NDArray[np.float32]
"""Embeddings or similarities, one row per item."""

ImageInput = str | bytes
"""An encoded image: its bytes, or a base64 string, data URI or URL from a JSON document."""
