"""The step `fold-stem`: a first convolution of stride 2 reads blocks of pixels as channels, which is the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from posequant.ncnn_format.model import Layer, NcnnModel, Weights, weighted_inputs
from posequant.ncnn_format.window import Window
from posequant.recipe.draft import Draft, Floats
from posequant.workflow.settings.recipe import FoldStemStep

# Of a smaller kernel half of the folded weights are zeros and more, and nothing is won (3x3: measured).
_LEAST_KERNEL = 5
# As many as an image has; more channels lie beside each other already.
_MOST_CHANNELS = 4


def fold_stem(draft: Draft, crops: Sequence[Floats], threads: int, settings: FoldStemStep) -> Draft:
    """Let a first convolution of stride 2 and a large kernel read blocks of 2x2 pixels as channels, if it is in INT8.

    A 7x7 convolution of stride 2 over 3 channels is a 4x4 convolution of stride 1 over 12: a kernel of 8x8 whose first
    row and column are zero, taken block by block. The integers are the same, and so is each sum. ncnn collects the
    pixels that a kernel covers one by one where there are few channels; of a block it has four beside each other. Known
    as space-to-depth.

    Args:
        draft: the draft, with all its scales.
        crops: the calibration crops, float32 (3, H, W); they tell the size of the input.
        threads: not used.
        settings: none.
    """
    stem = foldable(draft.model.layers, crops[0].shape)
    if stem is None or stem.name not in draft.names:
        return draft
    return replace(draft, reference=folded(draft.reference, stem.name), model=folded(draft.model, stem.name))


def foldable(layers: Sequence[Layer], input_shape: Sequence[int]) -> Layer | None:
    """Return the convolution that can be folded, None where there is none.

    Args:
        layers: of a float network with one input.
        input_shape: channels, height and width of a crop.
    """
    channels, *sides = input_shape
    of_input = {top for layer in layers if layer.type == "Input" for top in layer.tops}
    for layer in layers:
        if layer.type == "Split" and layer.bottoms[0] in of_input:
            of_input.update(layer.tops)
        elif layer.type == "Convolution" and layer.bottoms[0] in of_input:
            window = Window.of(layer)
            fits = weighted_inputs(layer) == channels <= _MOST_CHANNELS and not any(side % 2 for side in sides)
            steps_fit = window.stride == (2, 2) and window.dilation == (1, 1)
            if fits and steps_fit and all(axis.foldable for axis in _axes(window)):
                return layer
    return None


def folded(model: NcnnModel, name: str) -> NcnnModel:
    """Return a network whose convolution `name`, one that is `foldable`, reads blocks of 2x2 pixels as channels."""
    layers: list[Layer] = []
    weights: list[Weights] = []
    for layer, values in zip(model.layers, model.weights, strict=True):
        if layer.name == name:
            blocks = f"{layer.bottoms[0]}_blocks"
            layers.append(Layer("Reorg", f"{name}_blocks", layer.bottoms, (blocks,), {0: "2"}))
            weights.append({})
            layer, values = _on_blocks(layer, values, blocks)
        layers.append(layer)
        weights.append(values)
    return NcnnModel(layers, weights)


class _Axis:
    """A convolution of stride 2 along an axis: where its kernel begins, and what that is in blocks of two.

    Attributes:
        kernel: its width.
        skipped: how many places of the first block lie before it.
        blocks: how many blocks it touches.
        before: padding before the tensor, in blocks.
        after: padding behind it.
        foldable: whether that is a convolution, and worth it.
    """

    def __init__(self, kernel: int, before: int, after: int) -> None:
        self.kernel = kernel
        first, last = -before // 2, (kernel - 1 - before) // 2
        self.skipped = -before - 2 * first
        self.blocks = last - first + 1
        self.before = -first
        self.after = (before + after - kernel) // 2 + self.blocks - self.before
        self.foldable = kernel >= _LEAST_KERNEL and min(before, after, self.after) >= 0


def _axes(window: Window) -> tuple[_Axis, _Axis]:
    """Return the axes down and across."""
    left, right, top, bottom = window.pads
    return _Axis(window.kernel[0], top, bottom), _Axis(window.kernel[1], left, right)


def _on_blocks(layer: Layer, weights: Weights, blocks: str) -> tuple[Layer, Weights]:
    rows, columns = _axes(Window.of(layer))
    outputs, channels = layer.integer(0), weighted_inputs(layer) or 0
    weight = weights["weight"].reshape(outputs, channels, rows.kernel, columns.kernel)
    whole = np.zeros((outputs, channels, 2 * rows.blocks, 2 * columns.blocks), weight.dtype)
    down, across = (slice(axis.skipped, axis.skipped + axis.kernel) for axis in (rows, columns))
    whole[:, :, down, across] = weight
    # As Reorg orders them: a channel's four pixels lie beside each other.
    parts = whole.reshape(outputs, channels, rows.blocks, 2, columns.blocks, 2).transpose(0, 1, 3, 5, 2, 4)
    params = {
        **{1: columns.blocks, 11: rows.blocks, 3: 1, 13: 1, 6: whole.size},
        **{4: columns.before, 14: rows.before, 15: columns.after, 16: rows.after},
    }
    texts = {key: str(value) for key, value in params.items()}
    return replace(layer, bottoms=(blocks,), params={**layer.params, **texts}), {**weights, "weight": parts.ravel()}
