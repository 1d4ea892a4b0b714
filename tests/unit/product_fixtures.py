"""A small network like a transformer: every matrix product that ncnn2int8 tells apart, from crops to 17 heatmaps."""

import numpy as np
from tests.unit.ncnn_fixtures import Builder, Floats

TOKENS, WIDTH = 48, 16
# In the network's order; the last two have no weights.
PRODUCTS = ["attention", "expand", "reduce", "mix", "cross", "similarity", "gather"]


def transformer_network(seed: int = 0) -> Builder:
    """The network.

    The largest weight of each second factor is one of the first output's: the official ncnn2int8 looks at no other.
    """
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> Floats:
        values: Floats = rng.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
        return values

    def factor(outputs: int, inputs: int) -> Floats:
        values = weight(outputs, inputs)
        values[0, 0] = 1.25 * np.abs(values).max()
        return values

    def attention() -> dict[str, Floats]:
        names = [f"{name}_{kind}" for name in ("q", "k", "v", "out") for kind in ("weight", "bias")]
        return {name: weight(WIDTH, WIDTH).ravel() if name.endswith("t") else weight(WIDTH) for name in names}

    size = WIDTH * WIDTH
    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("patches", "in0", "map", weight(WIDTH, 3, 1, 1), weight(WIDTH), stride=2)
        .add("Reshape", "flat", "map", "rows", {0: TOKENS, 1: WIDTH})
        .add("Permute", "turn", "rows", "tokens", {0: 1})
        .add("Split", "split_tokens", "tokens", "tokens0 tokens1 tokens2")
        .add("LayerNorm", "norm", "tokens0", "normal", {0: WIDTH, 1: "1.000000e-05", 2: 0})
        .add("MultiHeadAttention", "attention", "normal", "seen", {0: WIDTH, 1: 2, 2: size}, **attention())
        .add("BinaryOp", "add_seen", "tokens1 seen", "sum", {0: 0})
        .add(
            *("Gemm", "expand", "sum", "wide", {3: 1, 5: 1, 6: 1, 7: TOKENS, 8: 2 * WIDTH, 9: WIDTH, 10: 4}),
            b=factor(2 * WIDTH, WIDTH).ravel(),
            c=weight(2 * WIDTH),
        )
        .add("GELU", "gelu", "wide", "curved")
        .add(
            *(
                "Gemm",
                "reduce",
                "curved",
                "narrow",
                {0: 0.5, 3: 0, 5: 1, 6: 1, 7: TOKENS, 8: WIDTH, 9: 2 * WIDTH, 10: 4},
            ),
            b=factor(WIDTH, 2 * WIDTH).T.ravel(),
            c=weight(WIDTH),
        )
        .add(
            *("Gemm", "mix", "narrow", "mixed", {2: 1, 3: 0, 4: 1, 6: 1, 7: TOKENS, 8: WIDTH, 9: TOKENS, 10: -1}),
            a=weight(TOKENS, TOKENS).T.ravel(),
        )
        .add("MultiHeadAttention", "cross", "mixed tokens2", "met", {0: WIDTH, 1: 4, 2: size}, **attention())
        .add("Split", "split_met", "met", "met0 met1 met2")
        .add("Gemm", "similarity", "met0 met1", "alike", {0: 0.25, 3: 1})
        .add("Softmax", "softmax", "alike", "shares", {0: 1, 1: 1})
        .add("Gemm", "gather", "shares met2", "gathered", {3: 0})
        .add("Permute", "turn_back", "gathered", "columns", {0: 1})
        .add("Reshape", "unflat", "columns", "small", {0: 6, 1: 8, 2: WIDTH})
        .add("Interp", "enlarge", "small", "large", {0: 1, 1: "2.000000e+00", 2: "2.000000e+00"})
        .convolution("head", "large", "out0", weight(17, WIDTH, 1, 1), weight(17))
    )
