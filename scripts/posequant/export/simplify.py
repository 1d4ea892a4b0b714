"""Simplifying an ONNX network: constants folded, shape arithmetic gone, all said that pnnx needs; same output."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.errors import InputError
from posequant.base.onnx_files import load_onnx, one_line, save_onnx
from posequant.base.verify import MIN_SQNR_DB, Tensor, hashes, require_same, run_onnx, verification, versions
from posequant.export.attention import split_heads_in_four_axes
from posequant.export.explicit import write_out

if TYPE_CHECKING:
    from onnx import ModelProto


def simplify(model: "ModelProto", source: Path) -> "ModelProto":
    """Return `model` simplified by onnxsim, its attention by `split_heads_in_four_axes`, the rest by `write_out`.

    Raises:
        InputError: onnxsim cannot simplify it; the message names `source`.
    """
    import onnxsim

    try:
        simplified, _ = onnxsim.simplify(model)
    except Exception as error:  # onnxsim's C++ throws RuntimeError and onnx's own errors
        raise InputError(f"{source}: onnxsim cannot simplify the network ({one_line(error)})") from error
    result: ModelProto = simplified
    split_heads_in_four_axes(result)
    write_out(result)
    return result


def simplify_verified(source: Path, crops: Tensor, target: Path) -> dict[str, Any]:
    """Simplify an ONNX file and check that its output is the same.

    Args:
        source: ONNX file.
        crops: float32 (N, 3, H, W).
        target: ONNX file to write.

    Returns:
        The record: nodes by operator before and after, difference, tolerance, versions, sha256.

    Raises:
        InputError: the file is missing or broken, or onnxsim cannot simplify it, or changes its output.
    """
    original = load_onnx(source, with_weights=True)
    simplified = simplify(original, source)
    minimum = MIN_SQNR_DB["fp32"]
    difference = require_same(
        run_onnx(original, crops), run_onnx(simplified, crops), minimum, f"{source}: simplification"
    )
    save_onnx(simplified, target)
    return {
        "reference": source.name,
        **verification(difference, crops, minimum),
        "sha256": hashes(target),
        "nodes_before": count_operators(original),
        "nodes_after": count_operators(simplified),
        "versions": versions("onnxsim", "onnx", "onnxruntime"),
    }


def count_operators(model: "ModelProto") -> dict[str, int]:
    """Return how many nodes of each operator a network has, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())
