"""Calibrate a network on crops: find the scale of every layer's weights and of its input."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.data.crop_files import crop_paths, read_crop
from posequant.ncnn_format.model import Layer, NcnnModel, read_param
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.official_tools import run_ncnn2table
from posequant.quantize.table import CalibrationTable, attention_scales
from posequant.quantize.thresholds import HISTOGRAM_BINS, aciq_threshold, histogram, kl_thresholds
from posequant.quantize.weights import INT8_LIMIT, miscomputed, quantizable, warn_of_miscomputed, weight_scales
from posequant.workflow.settings.quantize import METHODS

Floats = NDArray[np.float32]


def calibrate(
    param: Path, bin_: Path, crops: list[Path], method: str, *, threads: int = 1, keep_float: Collection[str] = ()
) -> CalibrationTable:
    """Return the calibration table of an ncnn network, as ncnn2table computes it.

    Activations are streamed: only counts are kept, and the result does not depend on the number of threads.

    Args:
        param: the network's `.param`.
        bin_: its `.bin`, with float weights.
        crops: `.npy` files, each the float32 tensor (3, height, width) of one crop as the network takes it.
        method: `kl`, the smallest Kullback-Leibler divergence, or `aciq`, clipping as if values were normal.
        threads: how many crops are computed at a time.
        keep_float: names of layers to leave out of the table, which then stay in float.

    Raises:
        InputError: if a file is missing or damaged, a crop is not such a tensor or not finite, or the input of a layer
            is zero on all crops.
    """
    if method not in METHODS:
        raise InputError(f"{method!r} is no method of calibration. Choose one of {', '.join(METHODS)}.")
    if not crops:
        raise InputError("the list of crops is empty. Calibration needs at least one crop.")
    model = NcnnModel.read(param, bin_)
    layers = quantizable(model.layers, keep_float)
    if marked := [layer.name for layer in model.layers if layer.int8_term]:
        raise InputError(f"{param}: layer {marked[0]} is INT8 already. Give the float model.")
    attention = attention_scales(model, keep_float)
    if not layers:
        return CalibrationTable({}, {}, attention)
    activations = Activations(param, bin_, layers, crops, threads)
    absmax, sizes = activations.ranges()
    for layer, largest in zip(layers, absmax, strict=True):
        if largest == 0:
            raise InputError(
                f"{param}: the input of layer {layer.name} is zero on every crop. Keep the layer in float."
            )
    if method == "aciq":
        thresholds = aciq_threshold(absmax, sizes)
    else:
        thresholds = kl_thresholds(activations.histograms(absmax), absmax)
    return CalibrationTable(
        {layer.name: weight_scales(layer, model.named(layer.name)[1]["weight"], method) for layer in layers},
        {layer.name: np.float32(INT8_LIMIT) / threshold for layer, threshold in zip(layers, thresholds, strict=True)},
        attention,
    )


def write_table(
    out: Path,
    param: Path,
    bin_: Path,
    crops: Path,
    method: str,
    *,
    threads: int = 1,
    keep_float: Collection[str] = (),
    tool: str | None = None,
) -> None:
    """Calibrate an ncnn network on a folder of crops and write its table, checked, whole or not at all.

    Layers that ncnn computes wrongly in INT8 are left out of it, and named on stderr.

    Args:
        out: the table to write.
        param: the network's `.param`.
        bin_: its `.bin`, with float weights.
        crops: the folder of the crops, as for `crop_paths`.
        method: as for `calibrate`.
        threads: as for `calibrate`.
        keep_float: as for `calibrate`.
        tool: the official ncnn2table to run in place of `calibrate`.

    Raises:
        InputError: as `calibrate` and `CalibrationTable.check`, and if `tool` fails.
    """
    files = crop_paths(crops)
    layers = read_param(param)
    warn_of_miscomputed(layers)
    if tool is None:
        table = calibrate(param, bin_, files, method, threads=threads, keep_float=keep_float)
    else:
        shape = read_crop(files[0]).shape
        for file in files:
            read_crop(file, shape)
        size = shape[2], shape[1]
        table = run_ncnn2table(tool, param, bin_, files, size=size, method=method, threads=threads)
        table = table.without({*keep_float, *miscomputed(layers)})
    with whole(out) as draft:
        table.write(draft)
        # What is checked is what the file says: it holds six decimals.
        CalibrationTable.read(draft).check(layers, keep_float, out)


class Activations:
    """What flows into some layers of a network on some crops, in as many passes as are asked for."""

    def __init__(self, param: Path, bin_: Path, layers: list[Layer], crops: list[Path], threads: int) -> None:
        """Load the network; `layers` are in its order. `InputError` if a file is missing or damaged."""
        self._shape = read_crop(crops[0]).shape
        self._network = NcnnNetwork(param, bin_, "fp32", self._shape)
        self._blobs = [layer.bottoms[0] for layer in layers]
        self._crops = crops
        self._threads = max(1, min(threads, len(crops)))

    def ranges(self) -> tuple[Floats, NDArray[np.int64]]:
        """Return, for each layer, the largest magnitude of its input over all crops, and the size of its input.

        They are float32 (L,) and int64 (L,).
        """

        def measure(values: list[tuple[np.float32, int]], index: int, blob: Floats) -> None:
            values[index] = max(values[index][0], np.abs(blob).max()), blob.size

        parts = self._pass("largest activations", lambda: [(np.float32(0), 0)] * len(self._blobs), measure)
        absmax = np.max([[largest for largest, _ in part] for part in parts], axis=0).astype(np.float32)
        return absmax, np.array([size for _, size in parts[0]], np.int64)

    def histograms(self, absmax: Floats) -> NDArray[np.int64]:
        """Return the histogram of each layer's input magnitudes up to `absmax` over all crops, int64 (L, 2048)."""

        def count(totals: NDArray[np.int64], index: int, blob: Floats) -> None:
            totals[index] += histogram(blob, absmax[index])

        new = partial(np.zeros, (len(self._blobs), HISTOGRAM_BINS), np.int64)
        totals: NDArray[np.int64] = np.sum(self._pass("histograms of activations", new, count), axis=0)
        return totals

    def _pass(self, title: str, new: Callable[[], Any], add: Callable[[Any, int, Floats], None]) -> list[Any]:
        """Run all crops; each thread adds the blobs of its share of them to a sum of its own. Return the sums."""
        with (
            tqdm(total=len(self._crops), desc=title, unit="crop", mininterval=2) as bar,
            ThreadPoolExecutor(self._threads) as pool,
        ):

            def run(share: list[Path]) -> Any:
                total = new()
                for path in share:
                    for index, blob in enumerate(self._network.activations(read_crop(path, self._shape), self._blobs)):
                        add(total, index, blob)
                    bar.update()
                return total

            return list(pool.map(run, [self._crops[start :: self._threads] for start in range(self._threads)]))
