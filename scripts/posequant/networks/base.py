"""What every runtime offers, and the checks that they share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posequant.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Network(Protocol):
    """A loaded network. One object serves many threads; each call computes on the thread that makes it."""

    def forward(self, crops: "NDArray[np.float32]") -> "list[NDArray[np.float32]]":
        """Run the network. This is what is timed: in every runtime it takes the crops in and hands the outputs out.

        Nothing looks whether the numbers are finite; that is for those who use them.

        Args:
            crops: normalised crops, float32 (N, 3, H, W), as `Cropper` makes them.

        Returns:
            Its outputs, float32 with N rows each: heatmaps (N, K, h, w), or for SimCC the two vectors
            (N, K, width * split) and (N, K, height * split).

        Raises:
            InputError: the crops have another type or shape than the network takes.
        """
        ...


def join_rows(rows: "Sequence[Sequence[NDArray[np.float32]]]") -> "list[NDArray[np.float32]]":
    """Return the outputs of single crops, arrays (1, ...) for each, as one array (N, ...) for each output."""
    import numpy as np

    return list(rows[0]) if len(rows) == 1 else [np.concatenate(output) for output in zip(*rows, strict=True)]


def require_crops(crops: "NDArray[Any]", input_shape: tuple[int, int, int]) -> None:
    """Raise `InputError` unless `crops` is float32 of shape (N, *input_shape)."""
    if crops.dtype != "float32" or crops.ndim != 4 or crops.shape[1:] != input_shape:
        expected = ", ".join(map(str, input_shape))
        raise InputError(f"the network takes crops of float32 (N, {expected}), not {crops.dtype} {crops.shape}")


def require_input_shape(path: Path, found: Sequence[Any], input_shape: tuple[int, int, int]) -> None:
    """Raise `InputError` naming `path` unless a network whose input is of the shape `found` takes single crops.

    An entry of `found` that is not a number is open and fits any size.
    """
    expected = (1, *input_shape)
    open_or_equal = [size == wanted or not isinstance(size, int) for size, wanted in zip(found, expected, strict=False)]
    if len(found) != len(expected) or not all(open_or_equal):
        raise InputError(f"{path}: its input is {list(found)}, but the model description says {list(expected)}")


def require_precision(path: Path, precision: str, quantized: bool) -> None:
    """Raise `InputError` naming `path` unless it is quantized for `int8` and only for that."""
    if precision == "int8" and not quantized:
        raise InputError(f"{path}: nothing in it is quantized. Quantize the network first.")
    if precision != "int8" and quantized:
        raise InputError(f"{path}: the network is quantized to INT8, so it cannot be run as {precision}.")
