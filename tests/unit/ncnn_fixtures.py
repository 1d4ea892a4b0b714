"""Small ncnn models made by hand, and what they compute, in numpy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from posequant.ncnn_format.model import Layer, NcnnModel, Weights
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table

Floats = NDArray[np.float32]

INPUT_SHAPE = (3, 16, 12)


@dataclass
class Builder:
    """Collects layers; every method adds one that reads `bottom` and makes the blobs it is given."""

    layers: list[Layer] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)

    def add(
        self,
        type_: str,
        name: str,
        bottoms: str,
        tops: str,
        params: dict[int, Any] | None = None,
        **weights: NDArray[Any],
    ) -> "Builder":
        texts = {key: str(value) for key, value in (params or {}).items()}
        self.layers.append(Layer(type_, name, tuple(bottoms.split()), tuple(tops.split()), texts))
        self.weights.append(weights)
        return self

    def convolution(
        self,
        name: str,
        bottom: str,
        top: str,
        weight: Floats,
        bias: Floats | None = None,
        *,
        stride: int = 1,
        group: int = 1,
        relu: bool = False,
    ) -> "Builder":
        out, _, height, width = weight.shape
        params = {0: out, 1: width, 11: height, 2: 1, 12: 1, 3: stride, 13: stride, 4: width // 2, 14: height // 2}
        params |= (
            {5: int(bias is not None), 6: weight.size} | ({7: group} if group > 1 else {}) | ({9: 1} if relu else {})
        )
        weights = {"weight": weight.ravel()} | ({} if bias is None else {"bias": bias})
        return self.add("ConvolutionDepthWise" if group > 1 else "Convolution", name, bottom, top, params, **weights)

    def inner_product(self, name: str, bottom: str, top: str, weight: Floats, bias: Floats) -> "Builder":
        params = {0: len(weight), 1: 1, 2: weight.size}
        return self.add("InnerProduct", name, bottom, top, params, weight=weight.ravel(), bias=bias)

    def model(self) -> NcnnModel:
        return NcnnModel(self.layers, self.weights)

    def write(self, folder: Path, stem: str = "model") -> tuple[Path, Path]:
        param, bin_ = folder / f"{stem}.param", folder / f"{stem}.bin"
        self.model().write(param, bin_)
        return param, bin_


def small_network(seed: int = 0) -> Builder:
    """A network with every case that ncnn2int8 tells apart.

    conv_a and conv_b are read by quantized convolutions only, conv_b by way of a Split; conv_f is read by a convolution
    and an addition. Outputs are a map `out0` (5, 16, 12) and a vector `out1` (6,).
    """
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> Floats:
        values: Floats = rng.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
        return values

    def bias(size: int) -> Floats:
        return rng.normal(size=size, scale=0.1).astype(np.float32)

    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), bias(8), relu=True)
        .convolution("conv_b", "a", "b", weight(8, 8, 1, 1), bias(8))
        .add("Split", "split_b", "b", "b0 b1")
        .convolution("convdw_c", "b0", "c", weight(8, 1, 3, 3), bias(8), group=8)
        .convolution("conv_d", "b1", "d", weight(8, 8, 3, 3), bias(8))
        .add("BinaryOp", "add_e", "c d", "e", {0: 0})
        .add("Split", "split_e", "e", "e0 e1")
        .convolution("conv_f", "e0", "f", weight(8, 8, 3, 3), bias(8), relu=True)
        .add("Split", "split_f", "f", "f0 f1")
        .convolution("conv_g", "f0", "g", weight(8, 8, 1, 1), bias(8))
        .add("BinaryOp", "add_h", "g f1", "h", {0: 0})
        .convolution("conv_out", "h", "out0", weight(5, 8, 1, 1))
        .inner_product("fc", "e1", "out1", weight(6, 8 * 16 * 12), bias(6))
    )


def small_network_in_numpy(model: NcnnModel, crop: Floats) -> dict[str, Floats]:
    """Return all blobs of `small_network` for one crop."""

    def layer(name: str, value: Floats) -> Any:
        line, weights = model.named(name)
        bias = weights.get("bias", np.zeros(line.integer(0), np.float32))
        if line.type == "InnerProduct":
            return weights["weight"].reshape(len(bias), -1) @ value.ravel() + bias
        side, group = line.integer(1), line.integer(7, 1)
        pad = side // 2
        padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad)))
        windows = sliding_window_view(padded, (side, side), axis=(1, 2)).reshape(
            group, -1, *value.shape[1:], side, side
        )
        kernels = weights["weight"].reshape(group, len(bias) // group, -1, side, side)
        out = np.einsum("gihwyx,goiyx->gohw", windows, kernels).reshape(-1, *value.shape[1:]) + bias[:, None, None]
        return np.maximum(out, 0) if line.integer(9) else out

    blobs = {"in0": crop, "a": layer("conv_a", crop)}
    blobs["b"] = blobs["b0"] = blobs["b1"] = layer("conv_b", blobs["a"])
    blobs["c"], blobs["d"] = layer("convdw_c", blobs["b"]), layer("conv_d", blobs["b"])
    blobs["e"] = blobs["e0"] = blobs["e1"] = blobs["c"] + blobs["d"]
    blobs["f"] = blobs["f0"] = blobs["f1"] = layer("conv_f", blobs["e"])
    blobs["g"] = layer("conv_g", blobs["f"])
    blobs["h"] = blobs["g"] + blobs["f"]
    return blobs | {"out0": layer("conv_out", blobs["h"]), "out1": layer("fc", blobs["e"])}


def weight(*shape: int, seed: int = 0) -> Floats:
    """Return random weights, float32, by which values keep their size."""
    scale = np.prod(shape[1:]) ** -0.5
    values: Floats = np.random.default_rng(seed).normal(size=shape, scale=scale).astype(np.float32)
    return values


def bias(size: int) -> Floats:
    """Return random values, float32 (size,)."""
    return weight(size, 1, seed=1).ravel()


def unfused_network(kind: str = "ReLU") -> Builder:
    """A network with an activation of a `kind`, whose layers do one thing each, as caffe2ncnn writes it."""
    draw = np.random.default_rng(2)

    def positive(size: int) -> Floats:
        values: Floats = draw.uniform(0.5, 1.5, size).astype(np.float32)
        return values

    norm = {"slope": positive(8), "mean": bias(8), "variance": positive(8), "bias": bias(8)}
    deconvolution = {0: 8, 1: 4, 3: 2, 4: 1, 6: 8 * 16, 7: 8}
    return (
        Builder()
        .add("Input", "data", "", "data")
        .convolution("conv1", "data", "conv1", weight(8, 3, 3, 3), stride=2)
        .add("BatchNorm", "bn1", "conv1", "bn1", {0: 8, 1: "1.000000e-05"}, **norm)
        .add("Scale", "scale1", "bn1", "scale1", {0: 8, 1: 1}, scale=positive(8), bias=bias(8))
        .add(kind, "act1", "scale1", "act1", {"ReLU": {0: "1.000000e-01"}, "Clip": {0: "0.0", 1: "6.0"}}.get(kind))
        .add("DeconvolutionDepthWise", "up", "act1", "up", deconvolution, weight=weight(8, 16).ravel())
        .add("BatchNorm", "bn2", "up", "bn2", {0: 8}, **norm)
        .add("ReLU", "act2", "bn2", "act2")
        .convolution("head", "act2", "head", weight(17, 8, 1, 1))
        .add("Bias", "bias", "head", "bias", {0: 17}, bias=bias(17))
    )


def draw_crops(count: int, seed: int = 1) -> Floats:
    """Return crops, float32 (count, *INPUT_SHAPE)."""
    return np.random.default_rng(seed).normal(size=(count, *INPUT_SHAPE)).astype(np.float32)


def write_crops(folder: Path, crops: Floats) -> list[Path]:
    """Write crops and their `list.txt` as the crops of a calibration set; return the files."""
    folder.mkdir()
    paths = [folder / f"{index:06d}.npy" for index in range(len(crops))]
    for path, crop in zip(paths, crops, strict=True):
        np.save(path, crop)
    (folder / "list.txt").write_text("".join(f"{path.name}\n" for path in paths))
    return paths


def write_int8(files: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """Calibrate a float network by `kl` on crops, quantize it into `folder`, and return its files."""
    write_crops(folder / "crops", draw_crops(8))
    write_table(folder / "table", *files, folder / "crops", "kl")
    pair = folder / "int8.param", folder / "int8.bin"
    quantize_files(*files, folder / "table", *pair)
    return pair


def sqnr(reference: Floats, other: Floats) -> float:
    """Return the ratio of signal to difference in dB."""
    signal, noise = reference.astype(np.float64), (other - reference).astype(np.float64)
    return float(10 * np.log10((signal**2).sum() / max((noise**2).sum(), 1e-300)))
