"""What the quantization of single layers does to the output of the network around them, which stays float."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.ncnn_layer import LayerNetwork
from posequant.quantize.propagation import Visit
from posequant.recipe.draft import Floats


class OutputError:
    """The error of a network's outputs on some crops when a few of its layers are replaced."""

    def __init__(self, model: NcnnModel, crops: Sequence[Floats]) -> None:
        """Run the float network on the crops, float32 (3, H, W)."""
        self._network = NcnnNetwork.of(model, "fp32", crops[0].shape)
        # Blobs as ncnn shapes them, so that they compare with what `resume` gives.
        names = self._network.output_names
        self._wanted = [list(self._network.activations(crop, names)) for crop in crops]
        self._power = [
            max(sum(float(np.square(output).sum(dtype=np.float64)) for output in outputs), 1e-30)
            for outputs in zip(*self._wanted, strict=True)
        ]

    def __call__(
        self, visit: Visit, replaced: Mapping[str, LayerNetwork], crops: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return the squared error of some crops, as a share of the squares of the outputs of all crops, float64 (N,).

        The shares of several outputs are added up.

        Args:
            visit: a layer of the float network, on the way of the same crops.
            replaced: layers that read the visited layer's input, by the blob that they make.
            crops: places of N crops, all where it is None.
        """
        (bottom,) = visit.layer.bottoms
        alive = {name: values for name, values in visit.alive.items() if name != bottom}

        def error(number: int) -> float:
            blobs = {name: values[number] for name, values in alive.items()}
            blobs |= {top: layer.run([visit.inputs[number]])[0] for top, layer in replaced.items()}
            outputs = zip(self._network.resume(blobs), self._wanted[number], self._power, strict=True)
            return sum(float(np.square(found - want).sum(dtype=np.float64)) / power for found, want, power in outputs)

        return np.array(visit.each(error, range(len(self._wanted)) if crops is None else crops))
