"""How the kernel of an ncnn convolution or deconvolution moves over its input."""

from dataclasses import dataclass

from posequant.ncnn_format.model import Layer

SAME = {-233: True, -234: False}
"""What stands for pads that follow from the output's size, and whether the odd one comes last, as in ONNX's SAME_UPPER.

The size of a convolution's output is its input's by the stride; a deconvolution's stands on its line.
"""


@dataclass(frozen=True)
class Window:
    """What the parameters of a layer say of its kernel (ncnn: `load_param` in src/layer/convolution.cpp).

    Attributes:
        kernel: its height and width.
        dilation: steps between its taps, down and across.
        stride: steps between its places, down and across.
        pads: left, right, top and bottom; all one key of `SAME` where they follow from the output's size.
        groups: of channels.
    """

    kernel: tuple[int, int]
    dilation: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int

    @classmethod
    def of(cls, layer: Layer) -> "Window":
        """Return that of a convolution or deconvolution."""
        # What is not given of the height is as of the width, and behind as before.
        across = [layer.integer(key, default) for key, default in ((1, 0), (2, 1), (3, 1))]
        down = [layer.integer(10 + key, size) for key, size in zip((1, 2, 3), across, strict=True)]
        kernel, dilation, stride = zip(down, across, strict=True)
        left, top = layer.integer(4), layer.integer(14, layer.integer(4))
        pads = left, layer.integer(15, left), top, layer.integer(16, top)
        groups = layer.integer(7, 1) if layer.type.endswith("DepthWise") else 1
        return cls(kernel, dilation, stride, pads, groups)

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width that the kernel spans."""
        return (
            self.dilation[0] * (self.kernel[0] - 1) + 1,
            self.dilation[1] * (self.kernel[1] - 1) + 1,
        )
