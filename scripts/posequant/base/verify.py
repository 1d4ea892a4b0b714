"""Checks that a converted network still computes the same: crops in, outputs of two runtimes compared."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posequant import __version__
from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256
from posequant.base.onnx_files import name_of, one_line, open_session
from posequant.base.signal import Powers

if TYPE_CHECKING:
    from onnx import ModelProto

Tensor = NDArray[np.float32]

MIN_SQNR_DB = {"fp32": 80.0, "fp16": 40.0}
"""What a conversion must reach, by the precision of the weights it writes.

Two runtimes in float32 agree to 110 dB and better; half-precision weights cost down to 65 dB (both measured on
Hourglass52). A wrong layer or a lost weight is below 30 dB.
"""


@dataclass(frozen=True)
class Difference:
    """How far a candidate's output is from the reference's.

    Attributes:
        max_abs: greatest absolute difference of any value.
        rms: root of the mean squared difference.
        sqnr_db: signal-to-quantization-noise ratio in dB, 10 log10(sum reference² / sum difference²); None where the
            outputs are equal to the last bit.
    """

    max_abs: float
    rms: float
    sqnr_db: float | None


def compare(reference: Sequence[Tensor], candidate: Sequence[Tensor]) -> Difference:
    """Compare the outputs of two runs, all outputs taken together.

    Args:
        reference: one array for each output.
        candidate: as many, of the same shapes.

    Raises:
        InputError: the numbers of outputs or their shapes differ, or a value is not finite.
    """
    shapes = [array.shape for array in reference], [array.shape for array in candidate]
    if shapes[0] != shapes[1]:
        raise InputError(f"the converted network gives outputs of shapes {shapes[1]}, the original one {shapes[0]}")
    for arrays, name in ((reference, "original"), (candidate, "converted")):
        if not all(np.isfinite(array).all() for array in arrays):
            raise InputError(f"the {name} network gives values that are not finite; check its weights")
    pairs = list(zip(reference, candidate, strict=True))
    powers = Powers.total([Powers.of(*pair) for pair in pairs])
    greatest = max(float(np.abs(one.astype(np.float64) - other).max()) for one, other in pairs)
    return Difference(greatest, math.sqrt(powers.noise / sum(one.size for one, _ in pairs)), powers.sqnr_db)


def require_same(reference: Sequence[Tensor], candidate: Sequence[Tensor], min_sqnr_db: float, step: str) -> Difference:
    """Return `compare` of the two; `InputError`, naming the `step`, if they agree to less than `min_sqnr_db`."""
    try:
        difference = compare(reference, candidate)
    except InputError as error:
        raise InputError(f"{step}: {error}") from error
    if difference.sqnr_db is not None and difference.sqnr_db < min_sqnr_db:
        raise InputError(
            f"{step}: the converted network does not compute the same: {difference.sqnr_db:.1f} dB, at least "
            f"{min_sqnr_db:.0f} dB needed (greatest difference {difference.max_abs:.3g})"
        )
    return difference


def run_onnx(model: "Path | ModelProto", crops: Tensor) -> list[Tensor]:
    """Run an ONNX network with one input in ONNX Runtime, a crop at a time.

    Args:
        model: file, or the network in memory.
        crops: float32 (N, C, H, W).

    Returns:
        One array for each output, its first axis N.

    Raises:
        InputError: ONNX Runtime cannot load the network or cannot run it on these crops.
    """
    session = open_session(model, threads=2)
    name = session.get_inputs()[0].name
    try:
        outputs = [session.run(None, {name: crop[None]}) for crop in crops]
    except Exception as error:  # its exceptions share no base class
        raise InputError(f"{name_of(model)}: ONNX Runtime cannot run it ({one_line(error)})") from error
    return [np.concatenate(arrays) for arrays in zip(*outputs, strict=True)]


def verification(difference: Difference, crops: Tensor, min_sqnr_db: float) -> dict[str, Any]:
    """Return what a conversion's record says of its check: crops compared, difference and what was demanded."""
    return {"verified_on_crops": len(crops), "difference": asdict(difference), "min_sqnr_db": min_sqnr_db}


def hashes(*files: Path) -> dict[str, str]:
    """Return the hex SHA-256 of each file, by its name."""
    return {path.name: sha256(path) for path in files}


def as_made(files: Sequence[Path]) -> dict[Path, str]:
    """Return the hex SHA-256 of the files of a network, compared with what its maker wrote down.

    Args:
        files: of a network; last of them, where there is one, the record (.json) of the step that made them.

    Returns:
        The hash of each file, without the record.

    Raises:
        InputError: a file is missing, or not as the record has it; the message names it.
    """
    *others, last = files
    if last.suffix != ".json":
        return {path: sha256(path) for path in files}
    content = read_json(last)
    said = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(said, dict):
        raise InputError(f"{last}: not the record of a step that makes networks. Delete it and run again.")
    found = {path: sha256(path) for path in others}
    for path, digest in found.items():
        if said.get(path.name) != digest:
            raise InputError(
                f"{path}: changed after it was made: its SHA-256 is {digest}, but {last} says "
                f"{said.get(path.name, 'nothing')}. Delete it and run again, which makes it again."
            )
    return found


def versions(*packages: str) -> dict[str, str]:
    """Return the version of PoseQuant and the `installed` ones of `packages`: for the record of a result."""
    return {"posequant": __version__, **installed(*packages)}


def installed(*packages: str) -> dict[str, str]:
    """Return the installed versions of `packages`, by their names in the package index."""
    return {package: version(package) for package in packages}
