"""The matrix products of a network: layers that ncnn computes in INT8 without calibration.

Their inputs are scaled as they come, by the largest magnitude of each: of a Gemm's first factor row by row. Only
weights have scales of their own (ncnn: `forward_int8` in src/layer/gemm.cpp, multiheadattention.cpp and sdpa.cpp). The
products of a MultiHeadAttention, and those of an SDPA layer, are computed so one by one.
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from posequant.ncnn_format.model import Layer

PRODUCTS = ("Gemm", "MultiHeadAttention", "SDPA")
"""Types of layers."""

_TRANSPOSED = {"a": 2, "b": 3}
"""The parameter of a Gemm that says whether a factor is transposed."""


def matrices(layer: Layer, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the constant factors of a matrix product, each with a row for every output that it makes.

    Args:
        layer: a Gemm, MultiHeadAttention or SDPA layer.
        weights: its weights, float or INT8.

    Returns:
        For a Gemm `a` (M, K) and `b` (N, K), those of the two that are constant, however they are stored; for attention
        `q_weight`, `k_weight`, `v_weight` and `out_weight`, each (outputs, inputs).
    """
    if layer.type == "Gemm":
        stored = {name: weights[name].reshape(_stored_rows(layer, name), -1) for name in _TRANSPOSED if name in weights}
        return {name: values if name in _as_rows(layer) else values.T for name, values in stored.items()}
    embedding = layer.integer(0)
    return {
        name: values.reshape(-1, embedding) if name == "out_weight" else values.reshape(embedding, -1)
        for name, values in weights.items()
        if name.endswith("_weight")
    }


def scales_of(name: str) -> str:
    """Return what `weight_slots` calls the scales of one of the `matrices`."""
    return f"{name.removesuffix('_weight')}_scales"


def with_rows(layer: Layer, names: Mapping[str, Any]) -> dict[int, str]:
    """Return the parameters of a matrix product whose constant factors `names` are stored as `matrices` has them."""
    if layer.type != "Gemm":
        return layer.params
    return layer.params | {_TRANSPOSED[name]: text for name, text in (("a", "0"), ("b", "1")) if name in names}


def _as_rows(layer: Layer) -> set[str]:
    return {name for name, plain in (("a", 0), ("b", 1)) if layer.integer(_TRANSPOSED[name]) == plain}


def _stored_rows(layer: Layer, name: str) -> int:
    outputs = layer.integer(7 if name == "a" else 8)
    return outputs if name in _as_rows(layer) else layer.integer(9)
