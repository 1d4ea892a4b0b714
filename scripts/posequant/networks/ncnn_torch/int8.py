"""INT8 layers of ncnn as PyTorch functions: forward in ncnn's own arithmetic, backward straight through the rounding.

Forward is the unpacked path of ncnn (`Option.use_packing_layout` off), which gives the same bits on x86 and ARM:
`src/layer/x86/quantize_x86.cpp`, `convolution_x86.cpp`, `dequantize_x86.cpp`, `requantize_x86.cpp`. Integers are whole
numbers in float32. Products of them add up exactly, in any order, as long as no sum reaches 2**24.

The gradients are those of learned step sizes (Esser and others: Learned Step Size Quantization, 2020): where a value
is clipped it has none, and the scale has that of the clipped value.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posequant.ncnn_format.window import SAME, Window
from posequant.networks.ncnn_torch.operations import Activation, same_pads

# The largest magnitude of an integer.
INT8_LIMIT = 127


def padded(x: Tensor, window: Window, value: float) -> tuple[Tensor, tuple[int, int]]:
    """Return an input with pads of `value`, or as it is with the pads of zeros that are left to do, down and across."""
    pads = list(window.pads)
    if pads[0] in SAME:
        pads = same_pads(x, window.extent, window.stride, upper=SAME[pads[0]])
    if value == 0 and pads[0] == pads[1] and pads[2] == pads[3]:
        return x, (pads[2], pads[0])
    return functional.pad(x, pads, value=value), (0, 0)


def correlate(x: Tensor, window: Window, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Return the convolution of an input that is `padded`."""
    return functional.conv2d(x, weight, bias, window.stride, padding, window.dilation, window.groups)


def round_half_away(x: Tensor) -> Tensor:
    """Return whole numbers, halves rounded away from zero, as ncnn does it: |x| + 0.5 in float32, rounded down."""
    return torch.copysign(x.abs().add_(0.5).floor_(), x)


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, non_negative: bool) -> Tensor:
        int8 = torch.mul(x, scale)
        if non_negative:
            int8.add_(0.5).floor_().clamp_(max=INT8_LIMIT)
        else:
            int8.abs_().add_(0.5).floor_().clamp_(max=INT8_LIMIT)
            torch.copysign(int8, x, out=int8)
        ctx.save_for_backward(x, int8, scale)
        return int8

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, int8, scale = ctx.saved_tensors
        largest = INT8_LIMIT / float(scale)
        of_scale = -_dot(gradient, int8) / scale**2
        # Nobody else has this gradient: it is a convolution's, or the sum of some.
        torch.ops.aten.hardtanh_backward.grad_input(gradient, x, -largest, largest, grad_input=gradient)
        return gradient, of_scale + _dot(gradient, x) / scale, None


def quantize(x: Tensor, scale: Tensor, *, non_negative: bool) -> Tensor:
    """Return values as INT8.

    Args:
        x: values of any shape.
        scale: the factor from a value to INT8, a scalar.
        non_negative: whether no value is below 0; it saves work.

    Returns:
        Whole numbers within -127 and 127. Their gradient is taken to be that of the values for which they stand, the
        numbers by the scale: `convolve` returns this one.
    """
    int8: Tensor = _Quantize.apply(x, scale, non_negative)  # type: ignore[no-untyped-call]
    return int8


@dataclass(frozen=True)
class _How:
    """What a convolution does beside its tensors."""

    window: Window
    padding: tuple[int, int]
    activation: Activation
    limit: int
    rounds_once: bool
    only_quantized: bool


def _whole(weight: Tensor, limit: int) -> Tensor:
    return round_half_away(weight).clamp_(-limit, limit).contiguous(memory_format=torch.channels_last)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: _How, *tensors: Any) -> Tensor:
        int8, weight, weight_scales, bias, scale = tensors
        whole = _whole(weight, how.limit)
        output = correlate(int8, how.window, whole, None, how.padding)
        factor = (1 / (scale * weight_scales)).reshape(-1, 1, 1)
        if bias is None:
            output.mul_(factor)
        elif how.rounds_once:
            # On processors with such an operation.
            torch.addcmul(bias.reshape(-1, 1, 1), output, factor, out=output)
        else:
            output.mul_(factor).add_(bias.reshape(-1, 1, 1))
        match how.activation.kind:
            case 1:
                output.relu_()
            case 2:
                functional.leaky_relu_(output, how.activation.values[0])
            case 3:
                output.clamp_(*how.activation.values)
        # The rounded weights are made again on the way back: all of them at once are as large as the network.
        ctx.save_for_backward(int8, weight, weight_scales, factor, output)
        ctx.how, ctx.has_bias = how, bias is not None
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        int8, weight, weight_scales, factor, output = ctx.saved_tensors
        how, aten = ctx.how, torch.ops.aten
        whole = _whole(weight, how.limit)
        into = gradient if how.only_quantized else torch.empty_like(gradient)
        match how.activation.kind:
            case 1:
                gradient = aten.threshold_backward.grad_input(gradient, output, 0, grad_input=into)
            case 2:
                slope = how.activation.values[0]
                gradient = aten.leaky_relu_backward.grad_input(gradient, output, slope, True, grad_input=into)
            case 3:
                gradient = aten.hardtanh_backward.grad_input(gradient, output, *how.activation.values, grad_input=into)
        of_input, of_weight, of_bias = aten.convolution_backward(
            gradient,
            int8,
            whole / weight_scales.reshape(-1, 1, 1, 1),
            [len(whole)] if ctx.has_bias else None,
            how.window.stride,
            how.padding,
            how.window.dilation,
            False,
            (0, 0),
            how.window.groups,
            (ctx.needs_input_grad[1], True, ctx.has_bias),
        )
        of_weight = of_weight * factor.reshape(-1, 1, 1, 1)
        of_scales = -(of_weight * whole).flatten(1).sum(1) / weight_scales
        of_weight = aten.hardtanh_backward(of_weight, weight, -how.limit - 0.5, how.limit + 0.5)
        return None, of_input, of_weight, of_scales, of_bias, None


def convolve(
    int8: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    scale: Tensor,
    *,
    window: Window,
    activation: Activation,
    pad: float = 0.0,
    limit: int = INT8_LIMIT,
    rounds_once: bool = True,
    only_quantized: bool = False,
) -> Tensor:
    """Return what an INT8 convolution makes of its input, in float.

    Args:
        int8: as `quantize` returns it (N, C, H, W).
        weight: the weights times their scale, not rounded (O, C / groups, h, w).
        weight_scales: their scales (O,). The gradient is that of a gain: the whole numbers stay what they are.
        bias: (O,) or None.
        scale: that of the input.
        window: how the kernel moves.
        activation: what is done with the result.
        pad: a whole number, with which the input is padded.
        limit: the largest magnitude of a weight.
        rounds_once: whether ncnn multiplies with the scales and adds the bias in one operation.
        only_quantized: whether nothing is made of the result but one `quantize`. It saves memory in the backward pass.
    """
    bordered, padding = padded(int8, window, pad)
    fused = activation if activation.kind <= 3 else Activation(0)
    output: Tensor = _Convolve.apply(  # type: ignore[no-untyped-call]
        _How(window, padding, fused, limit, rounds_once, only_quantized),
        bordered,
        weight,
        weight_scales,
        bias,
        scale.detach(),
    )
    return output if fused is activation else activation(output)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum of products of two tensors of one shape, without a tensor of the products where that can be."""
    if one.dim() == 4:
        one, other = one.permute(0, 2, 3, 1), other.permute(0, 2, 3, 1)
    if one.is_contiguous() and other.is_contiguous():
        return torch.dot(one.reshape(-1), other.reshape(-1))
    return (one * other).sum()
