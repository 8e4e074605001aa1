"""MLC's q4f32_1: groups of 32 weights of a row share a scale, eight of 4 bits lie in a word of 32.

A weight is (q - 7) x scale with scale = max |w| / 7, q in 0 to 14 (mlc_llm/quantization/group_quantization.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BITS, GROUP, PER_WORD, ZERO = 4, 32, 8, 7


def packed(weights: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """The words and the scales of a matrix whose rows are a multiple of GROUP long."""
    import numpy as np

    rows, columns = weights.shape
    groups = weights.reshape(rows, columns // GROUP, GROUP)
    scales: npt.NDArray[Any] = (np.abs(groups).max(axis=2) / np.float32(ZERO)).astype(np.float32)
    safe = np.where(scales == 0, np.float32(1), scales)  # a group of zeros is the middle value, whatever its scale
    values = np.clip(np.rint(groups / safe[:, :, None]) + ZERO, 0, 2 * ZERO).astype(np.uint32).reshape(rows, columns)
    words = np.zeros((rows, columns // PER_WORD), np.uint32)
    for place in range(PER_WORD):
        words |= values[:, place::PER_WORD] << np.uint32(BITS * place)
    return words, scales


def unpacked(words: npt.NDArray[np.uint32], scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The weights that words and scales stand for."""
    import numpy as np

    shifts = np.arange(PER_WORD, dtype=np.uint32) * np.uint32(BITS)
    values = (words[:, :, None] >> shifts & np.uint32(2**BITS - 1)).reshape(words.shape[0], -1).astype(np.float32)
    return (values - np.float32(ZERO)) * np.repeat(scales, GROUP, axis=1)
