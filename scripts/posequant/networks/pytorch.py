"""PyTorch: the reference that every other row is compared with."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from posequant.base.openmmlab import build_model, forward_tensors, load_config
from posequant.networks.base import require_crops


class PytorchNetwork:
    """An mmpose network on the CPU."""

    def __init__(self, config: Path, checkpoint: Path, input_shape: tuple[int, int, int]) -> None:
        """Build the network of `config` with the weights of `checkpoint`; `InputError` if they do not fit."""
        # Callers bring the threads; PyTorch's own on top of them would fight over the cores.
        torch.set_num_threads(1)
        self._model = build_model(load_config(config), checkpoint)
        self._input_shape = input_shape

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """See `Network.forward`; all crops go through the network as one batch."""
        require_crops(crops, self._input_shape)
        outputs = forward_tensors(self._model, torch.from_numpy(np.ascontiguousarray(crops)))
        return [output.numpy() for output in outputs]
