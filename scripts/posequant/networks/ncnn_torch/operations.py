"""What ncnn's layers without trained weights compute, as differentiable PyTorch functions.

A blob of ncnn, (w), (h, w), (c, h, w) or (c, d, h, w) in the order of memory, is a tensor with the batch before it. The
meaning of the parameters and their defaults are those of ncnn's `src/layer/*.cpp`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posequant.base.errors import InputError
from posequant.ncnn_format.model import ACTIVATION, ACTIVATION_VALUES, Layer, Weights

Operation = Callable[[Sequence[Tensor]], Sequence[Tensor]]

# What stands for a size that is not given.
UNSET = -233


@dataclass(frozen=True)
class Activation:
    """The activation that ncnn fuses to a layer, by its parameters `ACTIVATION` and `ACTIVATION_VALUES`.

    Attributes:
        kind: 0 none, 1 ReLU, 2 leaky ReLU, 3 clip, 4 sigmoid, 5 mish, 6 hard swish.
        values: its parameters.
    """

    kind: int
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, layer: Layer) -> "Activation":
        """Return that of a layer."""
        kind, values = layer.integer(ACTIVATION), tuple(layer.reals(ACTIVATION_VALUES))
        needed = {0: 0, 1: 0, 2: 1, 3: 2, 4: 0, 5: 0, 6: 2}
        if kind not in needed or len(values) < needed[kind]:
            raise InputError(f"layer {layer.name}: activation {kind} is not known.")
        return cls(kind, values[: needed[kind]])

    @property
    def non_negative(self) -> bool:
        """Whether no result is below 0."""
        return self.kind in (1, 4) or (self.kind == 3 and self.values[0] >= 0)

    def __call__(self, x: Tensor, *, in_place: bool = False) -> Tensor:
        """Return the activation of `x`, which nothing else may need if it is done in place."""
        match self.kind:
            case 1:
                return functional.relu(x, inplace=in_place)
            case 3 if in_place and not torch.is_grad_enabled():
                return x.clamp_(*self.values)
            case 2:
                return functional.leaky_relu(x, self.values[0])
            case 3:
                return x.clamp(*self.values)
            case 4:
                return torch.sigmoid(x)
            case 5:
                return functional.mish(x)
            case 6:
                return hard_swish(x, *self.values)
        return x


def hard_swish(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return x (alpha x + beta), with the factor within 0 and 1."""
    return x * (x * alpha + beta).clamp(0, 1)


def operation(layer: Layer, weights: Weights) -> Operation:
    """Return what a layer computes from its inputs.

    Args:
        layer: one of a type that has no weights to train.
        weights: its constants.

    Raises:
        InputError: there is no such function for its type or for its parameters.
    """
    if layer.type not in _OPERATIONS:
        raise InputError(f"layer {layer.name} is of type {layer.type}.")
    if odd := [key for key in _EXPRESSIONS.get(layer.type, ()) if key in layer.params]:
        raise InputError(f"layer {layer.name}: sizes by an expression ({odd[0]}={layer.params[odd[0]]}).")
    return _OPERATIONS[layer.type](layer, weights)


# Parameters by which a size is an expression of other blobs' sizes.
_EXPRESSIONS: Mapping[str, Sequence[int]] = {"Reshape": (6, 12, 13), "Interp": (9,)}


def _each(function: Callable[[Tensor], Tensor]) -> Operation:
    """Return the operation that applies a function to its only input."""

    def apply(bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        (bottom,) = bottoms
        return [function(bottom)]

    return apply


def _constant(weights: Weights, name: str) -> Tensor:
    return torch.from_numpy(weights[name].astype(np.float32))


def _by_channel(values: Tensor, like: Tensor) -> Tensor:
    """Return one value a channel so that it broadcasts with a blob: channels are its first axis."""
    return values.to(like.device).reshape(-1, *([1] * (like.dim() - 2)))


def _identity(layer: Layer, weights: Weights) -> Operation:
    return list


def _split(layer: Layer, weights: Weights) -> Operation:
    return lambda bottoms: [bottoms[0]] * len(layer.tops)


def _relu(layer: Layer, weights: Weights) -> Operation:
    slope = layer.real(0)
    return _each(functional.relu if slope == 0 else lambda x: functional.leaky_relu(x, slope))


def _prelu(layer: Layer, weights: Weights) -> Operation:
    slopes = _constant(weights, "slope")
    return _each(lambda x: torch.where(x < 0, x * _by_channel(slopes, x), x))


def _clip(layer: Layer, weights: Weights) -> Operation:
    least, greatest = layer.real(0, -np.inf), layer.real(1, np.inf)
    return _each(lambda x: x.clamp(least, greatest))


def _hard_swish(layer: Layer, weights: Weights) -> Operation:
    alpha, beta = layer.real(0, 0.2), layer.real(1, 0.5)
    return _each(lambda x: hard_swish(x, alpha, beta))


def _hard_sigmoid(layer: Layer, weights: Weights) -> Operation:
    alpha, beta = layer.real(0, 0.2), layer.real(1, 0.5)
    return _each(lambda x: (x * alpha + beta).clamp(0, 1))


def _elu(layer: Layer, weights: Weights) -> Operation:
    alpha = layer.real(0, 0.1)
    return _each(lambda x: functional.elu(x, alpha))


def _gelu(layer: Layer, weights: Weights) -> Operation:
    approximate = "tanh" if layer.integer(0) else "none"
    return _each(lambda x: functional.gelu(x, approximate=approximate))


_UNARY: Sequence[Callable[[Tensor], Tensor]] = (
    torch.abs, torch.neg, torch.floor, torch.ceil, torch.square, torch.sqrt, torch.rsqrt, torch.exp, torch.log,
    torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.reciprocal, torch.tanh, torch.log10,
    torch.round, torch.trunc, torch.sign, torch.expm1, torch.sinh, torch.asinh, torch.cosh, torch.acosh, torch.atanh,
    torch.log1p,
)  # fmt: skip


def _unary(layer: Layer, weights: Weights) -> Operation:
    kind = layer.integer(0)
    if not 0 <= kind < len(_UNARY):
        raise InputError(f"layer {layer.name}: operation {kind} is not known.")
    return _each(_UNARY[kind])


_BINARY: Sequence[Callable[[Tensor, Tensor], Tensor]] = (
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    torch.maximum,
    torch.minimum,
    torch.pow,
    lambda a, b: b - a,
    lambda a, b: b / a,
    lambda a, b: torch.pow(b, a),
    torch.atan2,
    lambda a, b: torch.atan2(b, a),
)


def _binary(layer: Layer, weights: Weights) -> Operation:
    kind = layer.integer(0)
    if not 0 <= kind < len(_BINARY):
        raise InputError(f"layer {layer.name}: operation {kind} is not known.")
    function = _BINARY[kind]
    if layer.integer(1) and len(layer.bottoms) == 1:
        scalar = np.float32(layer.real(2))
        return _each(lambda x: function(x, torch.tensor(scalar, device=x.device)))

    def apply(bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        one, other = bottoms
        return [function(_expanded(one, other), _expanded(other, one))]

    return apply


def _expanded(x: Tensor, other: Tensor) -> Tensor:
    """Return a blob with as many axes as another, where ncnn puts those that it lacks: inside, or before a row."""
    missing = other.dim() - x.dim()
    if missing <= 0:
        return x
    if x.dim() == 2 and x.shape[1] != other.shape[1]:
        return x.reshape(len(x), *([1] * missing), x.shape[1])
    return x.reshape(*x.shape, *([1] * missing))


def _axis(axis: int, x: Tensor) -> int:
    """Return the axis of a tensor that ncnn counts without the batch, from the front or from the back."""
    return axis + 1 if axis >= 0 else x.dim() + axis


def _concat(layer: Layer, weights: Weights) -> Operation:
    axis = layer.integer(0)
    return lambda bottoms: [torch.cat(list(bottoms), _axis(axis, bottoms[0]))]


def _slice(layer: Layer, weights: Weights) -> Operation:
    axis, sizes, places = layer.integer(1), [int(size) for size in layer.reals(0)], [int(at) for at in layer.reals(2)]
    count = len(layer.tops)
    if len(sizes) != count and len(places) < count - 1:
        raise InputError(f"layer {layer.name}: it says no sizes of its {count} parts.")

    def apply(bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        (x,) = bottoms
        along = _axis(axis, x)
        whole, start = x.shape[along], 0
        parts = []
        for number in range(count):
            if places:
                end = whole if number == count - 1 else places[number] % whole
                size = end - start
            else:
                size = (whole - start) // (count - number) if sizes[number] == UNSET else sizes[number]
            parts.append(x.narrow(along, start, size))
            start += size
        return parts

    return apply


def _interp(layer: Layer, weights: Weights) -> Operation:
    modes = {1: "nearest", 2: "bilinear"}
    kind, (height, width) = layer.integer(0), (layer.integer(3), layer.integer(4))
    scales = layer.real(1, 1), layer.real(2, 1)
    if kind not in modes or layer.integer(5) or len(layer.bottoms) != 1:
        raise InputError(f"layer {layer.name}: resizing of kind {kind} to {len(layer.bottoms)} inputs.")
    corners = bool(layer.integer(6)) if kind == 2 else None

    def resize(x: Tensor) -> Tensor:
        if x.dim() == 2:
            x = x[:, :, None, None]
        if x.dim() != 4:
            raise InputError(f"layer {layer.name}: a blob of {x.dim() - 1} axes.")
        size = (height, width)
        if not height or not width:
            size = (int(x.shape[2] * scales[0]), int(x.shape[3] * scales[1]))
        return functional.interpolate(x, size, mode=modes[kind], align_corners=corners)

    return _each(resize)


def _pooling(layer: Layer, weights: Weights) -> Operation:
    integer = layer.integer
    is_mean, mode = bool(integer(0)), integer(5)
    if integer(4):
        return _each(lambda x: x.flatten(2).mean(2) if is_mean else x.flatten(2).amax(2))
    if integer(7):
        wanted = integer(18, integer(8)), integer(8)
        adaptive = functional.adaptive_avg_pool2d if is_mean else functional.adaptive_max_pool2d

        def to_size(x: Tensor) -> Tensor:
            height, width = (had if size == UNSET else size for size, had in zip(wanted, x.shape[2:], strict=True))
            return adaptive(x, (height, width))

        return _each(to_size)
    kernel = integer(11, integer(1)), integer(1)
    stride = integer(12, integer(2, 1)), integer(2, 1)
    left, top = integer(3), integer(13, integer(3))
    right, bottom = integer(14, left), integer(15, top)

    def pool(x: Tensor) -> Tensor:
        full = [left, right, top, bottom]
        if mode in (2, 3):
            full = same_pads(x, kernel, stride, upper=mode == 2)
        elif mode == 0:
            rest = [-(x.shape[2] + top + bottom - kernel[0]), -(x.shape[3] + left + right - kernel[1])]
            full = [left, right + rest[1] % stride[1], top, bottom + rest[0] % stride[0]]
        if not is_mean:
            return functional.max_pool2d(functional.pad(x, full, value=-torch.inf), kernel, stride)
        sums = functional.avg_pool2d(functional.pad(x, full), kernel, stride)
        if integer(6):
            return sums
        inside = functional.pad(torch.ones_like(x[:1, :1]), full)
        return sums / functional.avg_pool2d(inside, kernel, stride)

    return _each(pool)


def same_pads(x: Tensor, extent: Sequence[int], stride: Sequence[int], *, upper: bool) -> list[int]:
    """Return left, right, top and bottom pads by which the output has the input's size by the stride, rounded up.

    Args:
        x: the input (N, C, H, W).
        extent: height and width that the kernel spans.
        stride: down and across.
        upper: whether the odd one comes after, not before.
    """
    pads: list[int] = []
    for size, spanned, step in zip(reversed(x.shape[2:]), reversed(extent), reversed(stride), strict=True):
        total = max(spanned + (size - 1) // step * step - size, 0)
        halves = [total // 2, total - total // 2]
        pads += halves if upper else halves[::-1]
    return pads


def _pixel_shuffle(layer: Layer, weights: Weights) -> Operation:
    factor, blocks_first = layer.integer(0, 1), bool(layer.integer(1))

    def shuffle(x: Tensor) -> Tensor:
        if not blocks_first:
            return functional.pixel_shuffle(x, factor)
        count, channels, height, width = x.shape
        parts = x.reshape(count, factor, factor, channels // factor**2, height, width)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * factor, width * factor)

    return _each(shuffle)


def _shuffle_channel(layer: Layer, weights: Weights) -> Operation:
    groups, reverse = layer.integer(0, 1), bool(layer.integer(1))

    def shuffle(x: Tensor) -> Tensor:
        parts = x.shape[1] // groups if reverse else groups
        order = torch.arange(x.shape[1], device=x.device).reshape(parts, -1).T.reshape(-1)
        return x.index_select(1, order)

    return _each(shuffle)


def _reshape(layer: Layer, weights: Weights) -> Operation:
    sizes = [layer.integer(key, UNSET) for key in (2, 11, 1, 0)]
    wanted = [size for size in sizes if size != UNSET]
    if not wanted:
        raise InputError(f"layer {layer.name}: it says no shape.")

    def reshape(x: Tensor) -> Tensor:
        # 0 keeps a size: of width and height counted from the back, of channels the first.
        had = list(x.shape[1:])
        shape = list(wanted)
        for place, size in enumerate(shape):
            if size == 0:
                from_back = len(shape) - place
                shape[place] = had[0] if place == 0 and len(shape) > 2 else had[-from_back]
        return x.contiguous().reshape(len(x), *shape)

    return _each(reshape)


def _permute(layer: Layer, weights: Weights) -> Operation:
    kind = layer.integer(0)

    def permute(x: Tensor) -> Tensor:
        axes = x.dim() - 1
        return x.permute(0, *(axes - axis for axis in reversed(_orders(axes)[kind])))

    return _each(permute)


def _orders(axes: int) -> list[tuple[int, ...]]:
    """Return in ncnn's order which axis becomes which, both counted from the innermost: (w, h, c) is (0, 1, 2)."""
    if axes < 2:
        return [tuple(range(axes))]
    found = []
    for outermost in reversed(range(axes)):
        rest = [axis for axis in range(axes) if axis != outermost]
        found += [(*(rest[axis] for axis in order), outermost) for order in _orders(axes - 1)]
    return found


def _padding(layer: Layer, weights: Weights) -> Operation:
    top, bottom, left, right = (layer.integer(key) for key in range(4))
    kind, value = layer.integer(4), layer.real(5)
    modes = {0: "constant", 1: "replicate", 2: "reflect"}
    if kind not in modes or "values" in weights or layer.integer(7) or layer.integer(8):
        raise InputError(f"layer {layer.name}: padding of kind {kind}, by channels or with values of their own.")
    pads = [left, right, top, bottom]
    if kind == 0:
        return _each(lambda x: functional.pad(x, pads, value=value))
    return _each(lambda x: functional.pad(x, pads, mode=modes[kind]))


def _eltwise(layer: Layer, weights: Weights) -> Operation:
    kind, factors = layer.integer(0), layer.reals(1)
    if kind not in (0, 1, 2):
        raise InputError(f"layer {layer.name}: operation {kind} is not known.")

    def apply(bottoms: Sequence[Tensor]) -> Sequence[Tensor]:
        function = (torch.mul, torch.add, torch.maximum)[kind]
        values = list(bottoms)
        if kind == 1 and factors:
            values = [x * factor for x, factor in zip(values, factors, strict=True)]
        total = values[0]
        for x in values[1:]:
            total = function(total, x)
        return [total]

    return apply


def _batch_norm(layer: Layer, weights: Weights) -> Operation:
    root = torch.sqrt(_constant(weights, "variance") + layer.real(1))
    factor = _constant(weights, "slope") / root
    offset = _constant(weights, "bias") - _constant(weights, "mean") * factor
    return _each(lambda x: x * _by_channel(factor, x) + _by_channel(offset, x))


def _scale(layer: Layer, weights: Weights) -> Operation:
    if "scale" not in weights:
        if layer.integer(1):
            raise InputError(f"layer {layer.name}: a bias, but a scale that is computed.")
        return lambda bottoms: [bottoms[0] * bottoms[1].reshape(*bottoms[1].shape, *[1] * (bottoms[0].dim() - 2))]
    factor = _constant(weights, "scale")
    if "bias" not in weights:
        return _each(lambda x: x * _by_channel(factor, x))
    offset = _constant(weights, "bias")
    return _each(lambda x: x * _by_channel(factor, x) + _by_channel(offset, x))


def _dropout(layer: Layer, weights: Weights) -> Operation:
    factor = layer.real(0, 1)
    return _each(lambda x: x if factor == 1 else x * factor)


def _softmax(layer: Layer, weights: Weights) -> Operation:
    axis = layer.integer(0)
    return _each(lambda x: torch.softmax(x, _axis(axis, x)))


_REDUCTIONS: Mapping[int, Callable[[Tensor, list[int]], Tensor]] = {
    0: lambda x, axes: x.sum(axes),
    1: lambda x, axes: x.abs().sum(axes),
    2: lambda x, axes: x.square().sum(axes),
    3: lambda x, axes: x.mean(axes),
    4: lambda x, axes: x.amax(axes),
    5: lambda x, axes: x.amin(axes),
    7: lambda x, axes: x.abs().sum(axes),
    8: lambda x, axes: x.square().sum(axes).sqrt(),
    9: lambda x, axes: x.sum(axes).log(),
    10: lambda x, axes: torch.logsumexp(x, axes),
}


def _reduction(layer: Layer, weights: Weights) -> Operation:
    kind, factor, kept = layer.integer(0), layer.real(2, 1), bool(layer.integer(4))
    wanted = [int(axis) for axis in layer.reals(3)]
    if kind not in _REDUCTIONS:
        raise InputError(f"layer {layer.name}: operation {kind} is not known.")

    def reduce(x: Tensor) -> Tensor:
        every = layer.integer(1, 1) or not wanted
        axes = sorted(range(1, x.dim()) if every else {_axis(axis, x) for axis in wanted})
        reduced = _REDUCTIONS[kind](x, list(axes)) * factor
        if kept:
            return reduced.reshape(len(x), *(1 if axis in axes else x.shape[axis] for axis in range(1, x.dim())))
        return reduced.reshape(len(x), -1) if reduced.dim() == 1 else reduced

    return _each(reduce)


def _memory_data(layer: Layer, weights: Weights) -> Operation:
    sizes = [size for size in (layer.integer(key) for key in (2, 11, 1, 0)) if size] or [1]
    data = (_constant(weights, "data") if "data" in weights else torch.zeros(1)).reshape(1, *sizes)
    return lambda bottoms: [data]


_OPERATIONS: Mapping[str, Callable[[Layer, Weights], Operation]] = {
    "BatchNorm": _batch_norm,
    "BinaryOp": _binary,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _dropout,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Flatten": lambda layer, weights: _each(lambda x: x.contiguous().flatten(1)),
    "GELU": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Interp": _interp,
    "MemoryData": _memory_data,
    "Mish": lambda layer, weights: _each(functional.mish),
    "Noop": _identity,
    "PReLU": _prelu,
    "Padding": _padding,
    "Permute": _permute,
    "PixelShuffle": _pixel_shuffle,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Scale": _scale,
    "ShuffleChannel": _shuffle_channel,
    "Sigmoid": lambda layer, weights: _each(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Swish": lambda layer, weights: _each(functional.silu),
    "TanH": lambda layer, weights: _each(torch.tanh),
    "UnaryOp": _unary,
}
