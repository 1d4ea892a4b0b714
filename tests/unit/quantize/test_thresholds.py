"""The clipping thresholds against the formulas of ncnn2table written out step by step."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from posequant.quantize.thresholds import _divergence, aciq_threshold, histogram, kl_thresholds

F = np.float32
EPSILON = F(0.0001)


def literal_divergence(normed: NDArray[np.float32], threshold: int) -> np.float32:
    """Follow quantize_KL of tools/quantize/ncnn2table.cpp value by value, in float32."""
    clipped = [EPSILON + value for value in normed[:threshold]]
    for value in normed[threshold:]:
        clipped[-1] += value
    per_level = F(threshold) / F(128)
    levels = []
    expanded = [EPSILON] * threshold
    for level in range(128):
        start, end = F(level) * per_level, F(level + 1) * per_level
        left, right = math.ceil(start), math.floor(end)
        left_part, right_part = F(left) - start, end - F(right)
        total = F(0)
        if left_part > 0:
            total += left_part * normed[left - 1]
        if right_part > 0:
            total += right_part * normed[right]
        for index in range(left, right):
            total += normed[index]
        levels.append(total / (F(right - left) + left_part + right_part))
        if left_part > 0:
            expanded[left - 1] += left_part * levels[-1]
        if right_part > 0:
            expanded[right] += right_part * levels[-1]
        for index in range(left, right):
            expanded[index] += levels[-1]
    divergence = F(0)
    for a, b in zip(clipped, expanded, strict=True):
        divergence += a * F(math.log(a / b))
    return divergence


def literal_threshold(counts: NDArray[np.int64], absmax: np.float32, candidates: list[int]) -> np.float32:
    normed = (counts / float(counts.sum())).astype(F)
    best = min(candidates, key=lambda threshold: literal_divergence(normed, threshold))
    return (F(best) + F(0.5)) * absmax / F(2048)


def draw_counts(seed: int, scale: float = 300.0, sparse: float = 0.0) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    magnitudes = np.minimum(np.abs(rng.laplace(scale=scale, size=20000)).astype(int), 2047)
    counts = np.bincount(magnitudes, minlength=2048)
    counts[rng.random(2048) < sparse] = 0
    counts[2047] += 1
    return counts


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1, 3000),
    sparse=st.floats(0, 0.99),
    threshold=st.integers(128, 2047),
)
@settings(max_examples=60, deadline=None)
def test_the_divergence_is_that_of_ncnn2table_to_the_last_digit(
    seed: int, scale: float, sparse: float, threshold: int
) -> None:
    counts = draw_counts(seed, scale, sparse)
    normed = (counts / float(counts.sum())).astype(F)
    assert _divergence(normed[np.newaxis], threshold)[0] == literal_divergence(normed, threshold)


def test_the_threshold_of_smallest_divergence_is_taken() -> None:
    counts = np.stack([draw_counts(1, 100), draw_counts(2, 400), draw_counts(3, 2000, 0.5)])
    absmax = np.array([1.0, 6.0, 0.03], F)
    thresholds = kl_thresholds(counts, absmax)
    for row, largest, threshold in zip(counts, absmax, thresholds, strict=True):
        bins = round(float(threshold) / float(largest) * 2048 - 0.5)
        rivals = sorted({*range(max(128, bins - 3), min(2048, bins + 4)), *range(128, 2048, 61)})
        assert literal_threshold(row, largest, rivals) == threshold


def test_equal_divergences_take_the_first() -> None:
    # Only the first bins are filled, evenly: every threshold reproduces them alike or worse than 128 bins do.
    counts = np.zeros((1, 2048), np.int64)
    counts[0, :128] = 10
    assert kl_thresholds(counts, np.array([2048.0], F))[0] == F(128.5)


def test_rows_do_not_influence_each_other() -> None:
    counts = np.stack([draw_counts(seed, 50.0 * (seed + 1)) for seed in range(4)])
    absmax = np.arange(1, 5).astype(F)
    alone = [kl_thresholds(counts[row : row + 1], absmax[row : row + 1])[0] for row in range(4)]
    np.testing.assert_array_equal(kl_thresholds(counts, absmax), alone)


@given(
    values=st.lists(st.floats(-100, 100, width=32) | st.just(0.0), min_size=1, max_size=50).filter(any),
    shape=st.sampled_from([(-1,), (1, -1, 1)]),
)
def test_a_histogram_counts_magnitudes_but_no_zeros(values: list[float], shape: Any) -> None:
    absmax = max(F(abs(value)) for value in values)
    expected = np.zeros(2048, np.int64)
    for value in values:
        if value != 0:
            expected[min(int(abs(F(value)) / absmax * F(2048)), 2047)] += 1
    np.testing.assert_array_equal(histogram(np.array(values, F).reshape(shape), absmax), expected)


def test_a_histogram_leaves_its_values_as_they_are() -> None:
    values = np.array([-1.0, 2.0], F)
    histogram(values, F(2))
    np.testing.assert_array_equal(values, [-1.0, 2.0])


@pytest.mark.parametrize(("bits", "alpha"), [(8, 3.92403714), (6, 3.28691474)])
@given(absmax=st.floats(2.0**-20, 2.0**20, width=32), count=st.integers(2, 10**7))
def test_aciq_is_that_of_ncnn2table(bits: int, alpha: float, absmax: float, count: int) -> None:
    constant = (0.5 * 0.35) * (1 + math.sqrt(3.14159265358979323846 * math.log(4)))
    deviation = float(F(absmax) * F(2)) * constant / math.sqrt(2 * math.log(count))
    threshold = aciq_threshold(np.array([absmax], F), count, bits)
    assert threshold.dtype == F
    np.testing.assert_array_max_ulp(threshold, np.array([float(F(alpha)) * deviation], F), 1)


def test_aciq_of_a_single_value_is_infinite() -> None:
    assert np.isinf(aciq_threshold(np.array([3.0], F), 1)[0])
