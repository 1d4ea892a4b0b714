"""A whole ncnn network in PyTorch, whose weights, biases and scales can be trained."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posequant.base.errors import InputError
from posequant.ncnn_format.model import PAD_VALUE, Layer, NcnnModel, Weights, weighted_inputs
from posequant.ncnn_format.window import SAME, Window
from posequant.networks.ncnn_torch.int8 import INT8_LIMIT, convolve, correlate, padded, quantize, round_half_away
from posequant.networks.ncnn_torch.operations import Activation, Operation, operation

Floats = NDArray[np.float32]

_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_DECONVOLUTIONS = ("Deconvolution", "DeconvolutionDepthWise")
TRAINED = (*_CONVOLUTIONS, *_DECONVOLUTIONS, "InnerProduct")

# Layers that hand on values that are not negative where they get only such.
_KEEP_SIGN = {
    "Split", "Concat", "Slice", "Pooling", "Interp", "PixelShuffle", "ShuffleChannel", "Reshape", "Permute", "Flatten",
    "Dropout", "Noop",
}  # fmt: skip
# Whole numbers up to it are exact in float32.
_EXACT = 2**24


def unsupported(model: NcnnModel) -> list[str]:
    """Return what of a network cannot be computed in PyTorch here, in words; nothing where all can."""
    found = []
    for layer, weights in zip(model.layers, model.weights, strict=True):
        try:
            _checked(layer, weights)
        except InputError as error:
            found.append(str(error))
    return found


def _checked(layer: Layer, weights: Weights) -> Operation | None:
    """Return the operation of a layer without trained weights; `InputError` where a layer cannot be computed."""
    if layer.type == "Input":
        return None
    if layer.type not in TRAINED:
        return operation(layer, weights)
    if "weight" not in weights or len(layer.bottoms) != 1:
        raise InputError(f"layer {layer.name}: its weights are computed.")
    Activation.of(layer)
    return None


@dataclass(frozen=True)
class _Int8:
    """The INT8 side of a layer.

    Attributes:
        source: the blob that it reads, and that of a Split where it reads a copy.
        scale: the key of its input's scale.
        limit: the largest magnitude of its weights.
        pad: what its input is padded with, in float.
    """

    source: str
    scale: tuple[str, float]
    limit: int
    pad: float


class TorchNetwork:
    """An ncnn network in PyTorch: layers that are marked as INT8 in ncnn's INT8 arithmetic, the others in float32.

    What can be trained are tensors by the names of layers. A scale that several layers have for one input is one.

    Attributes:
        weights: (O, C / groups, h, w). Of INT8 layers, the weights times their scales, not rounded; of others in an
            INT8 network they are rounded to float16 where they are used.
        biases: (O,).
        gains: for INT8 layers, natural logarithms of the factors of their weight scales to those of the model, (C,).
        ranges: for each scale of an input, the same of that scale, a scalar.
    """

    def __init__(
        self,
        model: NcnnModel,
        latent: NcnnModel | None = None,
        limits: Mapping[str, int] | None = None,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build the network.

        Args:
            model: the network, in float or as ncnn2int8 writes it.
            latent: where it is INT8, the float network of which it was made: INT8 weights start at its weights, where
                they round to the same, and what an input is padded with is known more exactly.
            limits: the largest magnitude of some layers' INT8 weights, by name; 127 for the others.
            device: where it is computed.

        Raises:
            InputError: a layer is `unsupported`.
        """
        self.model, self._device = model, torch.device(device)
        self._is_int8 = any(layer.int8_term for layer in model.layers)
        self._operations = {
            layer.name: _checked(layer, weights) for layer, weights in zip(model.layers, model.weights, strict=True)
        }
        self.weights: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        self.gains: dict[str, Tensor] = {}
        self.ranges: dict[tuple[str, float], Tensor] = {}
        self._weight_scales: dict[str, Tensor] = {}
        self._scales: dict[tuple[str, float], Tensor] = {}
        self._int8: dict[str, _Int8] = {}
        self._windows = {layer.name: Window.of(layer) for layer in model.layers if "onvolution" in layer.type}
        self._activations = {layer.name: Activation.of(layer) for layer in model.layers if layer.type in TRAINED}
        sources = _sources(model.layers)
        for layer, weights in zip(model.layers, model.weights, strict=True):
            if layer.type in TRAINED:
                self._take_weights(layer, weights)
                if layer.int8_term:
                    limit = (limits or {}).get(layer.name, INT8_LIMIT)
                    floats = latent.named(layer.name) if latent else None
                    source = sources.get(layer.bottoms[0], layer.bottoms[0])
                    self._take_scales(layer, weights, source, limit, floats)
        self._uses = Counter((one.source, one.scale) for one in self._int8.values())
        self._non_negative = _non_negative(model.layers, self._activations)
        self._rounded_at_once = _read_by_one(model.layers, {name: one.scale for name, one in self._int8.items()})
        self.output_names = _outputs(model.layers)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.tensor(values.astype(np.float32), device=self._device)

    def _take_weights(self, layer: Layer, weights: Weights) -> None:
        outputs = layer.integer(0)
        if layer.type == "InnerProduct":
            shape = [outputs, layer.integer(2) // outputs, 1, 1]
        else:
            window = self._windows[layer.name]
            shape = [outputs, (weighted_inputs(layer) or 0) // window.groups, *window.kernel]
        weight = self._tensor(weights["weight"]).reshape(shape)
        if layer.type in _DECONVOLUTIONS:
            # PyTorch has a deconvolution's inputs first.
            groups = self._windows[layer.name].groups
            weight = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
        self.weights[layer.name] = weight.contiguous(memory_format=torch.channels_last)
        if "bias" in weights:
            self.biases[layer.name] = self._tensor(weights["bias"])

    def _take_scales(
        self, layer: Layer, weights: Weights, source: str, limit: int, latent: tuple[Layer, Weights] | None
    ) -> None:
        scale = np.float32(weights["bottom_scales"][0])
        key = source, float(scale)
        self._scales[key] = self._tensor(np.asarray(scale))
        self.ranges.setdefault(key, torch.zeros((), device=self._device))
        scales = self._tensor(weights["weight_scales"])
        self._weight_scales[layer.name] = scales
        self.gains[layer.name] = torch.zeros_like(scales)
        pad = layer.real(PAD_VALUE) if layer.type != "InnerProduct" else 0.0
        if latent:
            pad = latent[0].real(PAD_VALUE) if pad else 0.0
            exact = self._tensor(latent[1]["weight"]).reshape(self.weights[layer.name].shape)
            exact = exact * self._by_output(layer.name, scales).reshape(-1, 1, 1, 1)
            same = round_half_away(exact).clamp(-limit, limit) == self.weights[layer.name]
            self.weights[layer.name] = torch.where(same, exact.clamp(-limit, limit), self.weights[layer.name])
        else:
            pad /= float(scale)
        self._int8[layer.name] = _Int8(source, key, limit, pad)

    def _by_output(self, name: str, scales: Tensor) -> Tensor:
        """Return a scale for each output channel: of depthwise layers there is one for each group."""
        outputs = len(self.weights[name])
        return scales if len(scales) == outputs else scales.repeat_interleave(outputs // len(scales))

    def scale_key(self, name: str) -> tuple[str, float]:
        """Return the key in `ranges` of an INT8 layer's input scale."""
        return self._int8[name].scale

    def scale(self, key: tuple[str, float]) -> Tensor:
        """Return an input's scale as it stands."""
        return self._scales[key] * self.ranges[key].exp()

    def weight_scales(self, name: str) -> Tensor:
        """Return an INT8 layer's weight scales as they stand, (C,)."""
        return self._weight_scales[name] * self.gains[name].exp()

    def integers(self, name: str) -> Tensor:
        """Return an INT8 layer's weights as they stand, whole numbers, (O, C / groups, h, w)."""
        limit = self._int8[name].limit
        return round_half_away(self.weights[name].detach()).clamp(-limit, limit)

    def float_weights(self, name: str) -> Floats:
        """Return the weights of a layer that is not INT8 as they are used, in ncnn's order, float32 (n,)."""
        weight = self.weights[name].detach()
        weight = _as_float16(weight) if self._is_int8 else weight
        layer, _ = self.model.named(name)
        if layer.type in _DECONVOLUTIONS:
            groups = self._windows[name].groups
            weight = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
        flat: Floats = weight.cpu().contiguous().numpy().ravel()
        return flat

    def magnitudes(self, crops: Tensor) -> dict[str, float]:
        """Return the root mean square of what each layer with weights gives for crops, by the layer's name."""
        tops = {layer.name: layer.tops[0] for layer in self.model.layers if layer.name in self.weights}
        (source,) = (layer.tops[0] for layer in self.model.layers if layer.type == "Input")
        blobs = self.run({source: crops}, set(tops.values()))
        return {name: float(blobs[top].square().mean().sqrt()) for name, top in tops.items()}

    @property
    def int8_layers(self) -> list[str]:
        """The names of the layers that are computed in INT8, in the network's order."""
        return list(self._int8)

    @property
    def inexact(self) -> list[str]:
        """The names of INT8 layers whose sums could, for some input, reach 2**24: float32 may then round them."""
        most = {name: self.integers(name).abs().flatten(1).sum(1).max() * INT8_LIMIT for name in self._int8}
        return [name for name, largest in most.items() if float(largest) >= _EXACT]

    def __call__(self, crops: Tensor) -> list[Tensor]:
        """Return the outputs `out0`, `out1`, ... for crops (N, C, H, W)."""
        (source,) = (layer.tops[0] for layer in self.model.layers if layer.type == "Input")
        found = self.run({source: crops}, self.output_names)
        return [found[name] for name in self.output_names]

    def run(self, blobs: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        """Compute some blobs from others.

        Args:
            blobs: tensors by their names, from which all that are wanted can be computed. What lies before is not.
            wanted: names of blobs.
        """
        held = {name: _channels_last(values.to(self._device)) for name, values in blobs.items()}
        batch = len(next(iter(held.values())))
        found = {name: held[name] for name in wanted if name in held}
        rounded: dict[tuple[str, tuple[str, float]], Tensor] = {}
        left = Counter(self._uses)
        for layer in _needed(self.model.layers, set(held), set(wanted)):
            tops = self._tops(layer, [held.pop(blob) for blob in layer.bottoms], rounded, left)
            if layer.type == "MemoryData":
                tops = [top.to(self._device).expand(batch, *top.shape[1:]) for top in tops]
            held.update(zip(layer.tops, tops, strict=True))
            found.update({name: held[name] for name in layer.tops if name in wanted})
        return found

    def _tops(
        self,
        layer: Layer,
        bottoms: Sequence[Tensor],
        rounded: dict[tuple[str, tuple[str, float]], Tensor],
        left: Counter[tuple[str, tuple[str, float]]],
    ) -> Sequence[Tensor]:
        if function := self._operations[layer.name]:
            return function(bottoms)
        (x,) = bottoms
        shape = x.shape
        if layer.type == "InnerProduct":
            # Rows of a matrix each by itself; anything else as one row.
            inputs = weighted_inputs(layer)
            x = x.transpose(1, 2)[..., None] if x.dim() == 3 and shape[2] == inputs else x.contiguous().flatten(1)
        if x.dim() == 2:
            x = x[:, :, None, None]
        y = self._int8_layer(layer, x, rounded, left) if layer.name in self._int8 else self._float_layer(layer, x)
        if len(shape) == 2 or (layer.type == "InnerProduct" and x.shape[2] == 1):
            return [y.flatten(1)]
        return [y[..., 0].transpose(1, 2) if layer.type == "InnerProduct" else y]

    def _int8_layer(
        self,
        layer: Layer,
        x: Tensor,
        rounded: dict[tuple[str, tuple[str, float]], Tensor],
        left: Counter[tuple[str, tuple[str, float]]],
    ) -> Tensor:
        of_layer = self._int8[layer.name]
        key = of_layer.source, of_layer.scale
        scale = self.scale(of_layer.scale)
        int8 = rounded.pop(key, None)
        if int8 is None or int8.shape != x.shape:
            int8 = quantize(x, scale, non_negative=layer.bottoms[0] in self._non_negative)
        left[key] -= 1
        if left[key] > 0:
            rounded[key] = int8
        pad = float(round_half_away(of_layer.pad * scale.detach())) if of_layer.pad else 0.0
        return convolve(
            int8,
            self.weights[layer.name],
            self._by_output(layer.name, self.weight_scales(layer.name)),
            self.biases.get(layer.name),
            scale,
            window=self._windows.get(layer.name, _POINT),
            activation=self._activations[layer.name],
            pad=pad,
            limit=of_layer.limit,
            rounds_once=self._rounds_once(layer),
            only_quantized=layer.tops[0] in self._rounded_at_once,
        )

    def _rounds_once(self, layer: Layer) -> bool:
        """Say whether ncnn scales sums and adds the bias in one operation; which it has was measured on x86."""
        if layer.type == "ConvolutionDepthWise":
            window = self._windows[layer.name]
            simple = window.kernel == (3, 3) and window.dilation == (1, 1) and window.stride in ((1, 1), (2, 2))
            return simple and self._activations[layer.name].kind < 2
        return layer.type == "Convolution"

    def _float_layer(self, layer: Layer, x: Tensor) -> Tensor:
        weight, bias = self.weights[layer.name], self.biases.get(layer.name)
        if self._is_int8:
            weight = _as_float16(weight)
        window = self._windows.get(layer.name, _POINT)
        if layer.type in _DECONVOLUTIONS:
            y = _deconvolve(layer, window, x, weight, bias)
        else:
            bordered, padding = padded(x, window, layer.real(PAD_VALUE) if layer.type in _CONVOLUTIONS else 0)
            y = correlate(bordered, window, weight, bias, padding)
        return self._activations[layer.name](y, in_place=True)


_POINT = Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _as_float16(weight: Tensor) -> Tensor:
    """Return weights as float16 holds them, with the gradient of the weights."""
    return weight + (weight.detach().half().float() - weight.detach())


def _deconvolve(layer: Layer, window: Window, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    left, right, top, bottom = window.pads
    more = layer.integer(19, layer.integer(18)), layer.integer(18)
    even = left == right >= 0 and top == bottom >= 0 and not any(more)
    size = layer.integer(21), layer.integer(20)
    if even and (max(left, top) > 0 or not all(size)):
        return functional.conv_transpose2d(
            x, weight, bias, window.stride, (top, left), 0, window.groups, window.dilation
        )
    # ncnn adds rows and columns where nothing but the bias reaches, and cuts the pads off the whole.
    whole = functional.conv_transpose2d(x, weight, None, window.stride, 0, 0, window.groups, window.dilation)
    whole = functional.pad(whole, [0, more[1], 0, more[0]])
    if bias is not None:
        whole = whole + bias.reshape(-1, 1, 1)
    if max(window.pads) <= 0:
        cut = (whole.shape[2] - size[0], whole.shape[3] - size[1]) if all(size) else (0, 0)
        top, left = (rest // 2 if SAME.get(window.pads[0], True) else rest - rest // 2 for rest in cut)
        bottom, right = cut[0] - top, cut[1] - left
    return whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]


def _sources(layers: Sequence[Layer]) -> dict[str, str]:
    """Return for each blob the one of which it is a copy by Splits, or itself."""
    sources: dict[str, str] = {}
    for layer in layers:
        for top in layer.tops:
            sources[top] = sources.get(layer.bottoms[0], layer.bottoms[0]) if layer.type == "Split" else top
    return sources


def _non_negative(layers: Sequence[Layer], activations: Mapping[str, Activation]) -> set[str]:
    """Return the blobs that hold no value below 0, as far as the types of layers tell."""
    found: set[str] = set()
    for layer in layers:
        activation = activations.get(layer.name)
        is_so = activation.non_negative if activation else layer.type in ("Sigmoid", "HardSigmoid", "Softmax")
        is_so |= layer.type == "ReLU" and layer.real(0) == 0
        is_so |= layer.type == "Clip" and layer.real(0, -np.inf) >= 0
        keeps = layer.type in _KEEP_SIGN or (
            layer.type == "BinaryOp" and layer.integer(0) in (0, 2) and len(layer.bottoms) == 2
        )
        if is_so or (keeps and layer.bottoms and found.issuperset(layer.bottoms)):
            found.update(layer.tops)
    return found


def _read_by_one(layers: Sequence[Layer], scales: Mapping[str, tuple[str, float]]) -> set[str]:
    """Return the blobs that nothing reads but INT8 layers with one scale, directly or by way of a Split.

    Args:
        layers: the network's.
        scales: keys of the INT8 layers' input scales, by the layers' names.
    """
    readers = {blob: layer for layer in layers for blob in layer.bottoms}
    found = set()
    for blob, reader in readers.items():
        ends = [readers.get(top) for top in reader.tops] if reader.type == "Split" else [reader]
        if len({scales.get(end.name) if end else None for end in ends} - {None}) == 1 and all(
            end and end.name in scales for end in ends
        ):
            found.add(blob)
    return found


def _outputs(layers: Sequence[Layer]) -> list[str]:
    read = {blob for layer in layers for blob in layer.bottoms}
    return sorted(
        (top for layer in layers for top in layer.tops if top not in read), key=lambda name: (len(name), name)
    )


def _needed(layers: Sequence[Layer], given: set[str], wanted: set[str]) -> list[Layer]:
    """Return the layers that compute the blobs `wanted` from those `given`, in order."""
    missing, found = wanted - given, []
    for layer in reversed(layers):
        if layer.type != "Input" and not missing.isdisjoint(layer.tops):
            found.append(layer)
            missing = (missing - set(layer.tops)) | (set(layer.bottoms) - given)
    return found[::-1]
