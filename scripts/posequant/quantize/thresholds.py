"""How much of the range of a tensor INT8 should cover: the thresholds of ncnn2table's methods.

The formulas are those of ncnn's `tools/quantize/ncnn2table.cpp`, and so is the precision of each step (float32, added
up in order): thresholds are chosen by comparing sums that differ in their last digits, and equal sums choose the same.
"""

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

HISTOGRAM_BINS = 2048
INT8_LEVELS = 128
# How many layers' thresholds are found side by side: one by one takes several times as long, all at once much memory.
_LAYERS_AT_ONCE = 16
# Added to every bin so that no ratio of distributions has a zero.
_EPSILON = np.float32(0.0001)

# The threshold, in standard deviations, that loses least when a normal distribution is quantized to so many bits
# (Banner, Nahshan, Soudry: Post training 4-bit quantization of convolutional networks, 2019).
_ACIQ_ALPHA = {6: np.float32(3.28691474), 8: np.float32(3.92403714)}


def histogram(values: NDArray[np.float32], absmax: np.float32) -> NDArray[np.int64]:
    """Count the magnitudes of `values`, zeros left out, in `HISTOGRAM_BINS` bins from 0 to `absmax` (above 0)."""
    bins = np.abs(values).ravel()
    bins /= absmax
    bins *= HISTOGRAM_BINS
    index = np.minimum(bins.astype(np.int32), HISTOGRAM_BINS - 1)
    counts = np.bincount(index, minlength=HISTOGRAM_BINS)
    counts[0] -= values.size - np.count_nonzero(values)
    return counts


def kl_thresholds(histograms: NDArray[np.int64], absmax: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the thresholds that keep the distributions of clipped and of quantized magnitudes closest.

    For every number of bins t from 128 to 2047 the first t bins, with all that is beyond counted in the last of them,
    are compared by their Kullback-Leibler divergence with the same bins averaged over 128 equal intervals. The
    smallest divergence wins, the first if several are equal (Migacz: 8-bit inference with TensorRT, 2017; ncnn2table
    `method=kl`).

    Args:
        histograms: counts of magnitudes by `histogram`, int64 (L, 2048), one row a layer, none all zero.
        absmax: the largest magnitude of each layer, float32 (L,).

    Returns:
        The threshold of each layer, float32 (L,), in the unit of `absmax`.
    """
    found = []
    with tqdm(total=len(absmax), desc="KL thresholds", unit="layer", mininterval=2) as bar:
        for start in range(0, len(absmax), _LAYERS_AT_ONCE):
            part = slice(start, start + _LAYERS_AT_ONCE)
            found.append(_kl_thresholds(histograms[part], absmax[part]))
            bar.update(len(found[-1]))
    return np.concatenate(found)


def _kl_thresholds(histograms: NDArray[np.int64], absmax: NDArray[np.float32]) -> NDArray[np.float32]:
    totals = histograms.sum(axis=1, keepdims=True, dtype=np.float64)
    normed = (histograms / totals).astype(np.float32)
    best = np.full(len(normed), np.inf, np.float32)
    bins = np.full(len(normed), INT8_LEVELS)
    for threshold in range(INT8_LEVELS, HISTOGRAM_BINS):
        divergence = _divergence(normed, threshold)
        better = divergence < best
        best[better] = divergence[better]
        bins[better] = threshold
    thresholds: NDArray[np.float32] = (bins.astype(np.float32) + np.float32(0.5)) * absmax / np.float32(HISTOGRAM_BINS)
    return thresholds


def aciq_threshold(absmax: NDArray[np.float32], count: int | NDArray[np.int64], bits: int = 8) -> NDArray[np.float32]:
    """Return the thresholds by which normally distributed values are best clipped.

    The standard deviation is estimated from the largest of `count` magnitudes (ncnn2table `method=aciq`, after Banner
    and others).

    Args:
        absmax: the largest magnitudes, float32.
        count: how many values each of them is the largest of. For a single one the threshold is infinite.
        bits: 6 or 8.

    Returns:
        Thresholds of the shape and unit of `absmax`, float32.
    """
    gaussian = (0.5 * 0.35) * (1 + np.sqrt(np.pi * np.log(4)))
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = (absmax * np.float32(2)) * gaussian / np.sqrt(2 * np.log(np.asarray(count, np.float64)))
        threshold: NDArray[np.float32] = (np.float64(_ACIQ_ALPHA[bits]) * deviation).astype(np.float32)
    return threshold


def _divergence(normed: NDArray[np.float32], threshold: int) -> NDArray[np.float32]:
    """Return the divergence of each row for one number of bins; float32, added up in order."""
    clipped = normed[:, :threshold] + _EPSILON
    beyond = np.concatenate((clipped[:, -1:], normed[:, threshold:]), axis=1)
    clipped[:, -1] = _sum_in_order(beyond)
    expanded = _expanded(_averaged(normed, threshold), threshold)
    # The logarithm is taken in double precision and rounded, as a C library's logf is right to the last digit.
    logarithm = np.log((clipped / expanded).astype(np.float64)).astype(np.float32)
    return _sum_in_order(clipped * logarithm)


def _averaged(normed: NDArray[np.float32], threshold: int) -> NDArray[np.float32]:
    """Return the means of the first `threshold` bins over 128 equal intervals; bins on a border count in part."""
    # In units of a 128th of a bin all borders are whole numbers.
    start = np.arange(INT8_LEVELS) * threshold
    end = start + threshold
    first, last = -(-start // INT8_LEVELS), end // INT8_LEVELS
    whole = first[:, np.newaxis] + np.arange((last - first).max())
    # The order is that of the source: the share of the bin on the left, on the right, then whole bins upwards.
    bins = np.column_stack((first - 1, last, whole)).clip(0, HISTOGRAM_BINS - 1)
    shares = np.column_stack(
        (first - start / INT8_LEVELS, end / INT8_LEVELS - last, whole < last[:, np.newaxis])
    ).astype(np.float32)
    return _sum_in_order(shares * normed[:, bins]) / np.float32(threshold / INT8_LEVELS)


def _expanded(averaged: NDArray[np.float32], threshold: int) -> NDArray[np.float32]:
    """Return the means of 128 intervals spread over `threshold` bins, the inverse of `_averaged`."""
    start = np.arange(threshold) * INT8_LEVELS
    interval = start // threshold
    share = np.minimum((interval + 1) * threshold - start, INT8_LEVELS) / np.float32(INT8_LEVELS)
    following = np.minimum(interval + 1, INT8_LEVELS - 1)
    expanded: NDArray[np.float32] = _EPSILON + share.astype(np.float32) * averaged[:, interval]
    expanded += (1 - share).astype(np.float32) * averaged[:, following]
    return expanded


def _sum_in_order(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the float32 sums over the last axis, added from left to right."""
    return np.cumsum(values, axis=-1, dtype=np.float32)[..., -1]
