"""What a layer's parameters say of its kernel."""

from posequant.ncnn_format.model import Layer
from posequant.ncnn_format.window import Window


def layer(params: dict[int, int], type_: str = "Convolution") -> Layer:
    return Layer(type_, "c", ("a",), ("b",), {key: str(value) for key, value in params.items()})


def test_the_height_is_as_the_width_and_behind_is_as_before() -> None:
    window = Window.of(layer({0: 8, 1: 3, 2: 2, 3: 2, 4: 1}))
    assert window == Window((3, 3), (2, 2), (2, 2), (1, 1, 1, 1), 1)
    assert window.extent == (5, 5)
    assert Window.of(layer({1: 1})) == Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1)


def test_all_may_be_given() -> None:
    params = {1: 3, 11: 5, 2: 1, 12: 3, 3: 2, 13: 1, 4: 1, 15: 2, 14: 3, 16: 4, 7: 8}
    window = Window.of(layer(params, "ConvolutionDepthWise"))
    assert window == Window((5, 3), (3, 1), (1, 2), (1, 2, 3, 4), 8)
    assert window.extent == (13, 3)
    # Pads below are as those above, which are as those on the left.
    assert Window.of(layer({1: 3, 4: 1, 14: 2})).pads == (1, 1, 2, 2)
