"""Random weights with which a network behaves as a trained one does: for trying the pipeline without a download."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posequant.base.keypoints import COCO, KeypointSet
from posequant.base.model_spec import ModelSpec
from posequant.base.openmmlab import build_model, load_config
from posequant.data.crops import Cropper
from posequant.demo.scenes import draw_scene
from posequant.demo.training import save_weights
from posequant.export.describe import describe_mmpose

if TYPE_CHECKING:
    import torch

BATCHES, BATCH = 2, 4

# Of the values that leave a batch norm: the mean is two deviations above zero, so that nearly all pass the ReLU behind
# it. A random network with batch norms is chaotic otherwise: each layer amplifies the smallest difference (Yang and
# others: A mean field theory of batch normalization, 2019), and not even two runtimes in float32 agree for long.
MEAN, DEVIATION = 1.0, 0.5


def write_random_checkpoint(config: str | Path, seed: int, out: Path, keypoints: KeypointSet = COCO) -> int:
    """Write a checkpoint of random weights for an mmpose network; the same seed gives the same weights.

    The statistics of its batch norms are those of drawn people, as in a trained network, and differences are passed on
    without being amplified: what half precision and INT8 lose stays small.

    Args:
        config: path, or name of a config that mmpose ships.
        seed: of weights and people.
        out: the checkpoint to write.
        keypoints: that the network finds.

    Returns:
        The number of parameters.

    Raises:
        InputError: as `describe_mmpose`.
    """
    import torch

    spec = describe_mmpose("random", config, keypoints)
    model = build_model(load_config(config), None, seed)
    crops = drawn_crops(spec, BATCHES * BATCH, seed)
    _set_batch_norms(model, [torch.from_numpy(batch) for batch in np.split(crops, BATCHES)])
    save_weights(model.state_dict(), out)
    return sum(parameter.numel() for parameter in model.parameters())


def _set_batch_norms(model: "torch.nn.Module", batches: "Sequence[torch.Tensor]") -> None:
    """Set what leaves all batch norms to `MEAN` and `DEVIATION`, and their statistics to the means over `batches`."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's way to ask for the plain mean of all batches
        norm.train()
        if norm.affine:
            torch.nn.init.constant_(norm.weight, DEVIATION)
            torch.nn.init.constant_(norm.bias, MEAN)
    with torch.inference_mode():
        for batch in batches:
            model(batch, None, mode="tensor")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def drawn_crops(spec: ModelSpec, number: int, seed: int) -> NDArray[np.float32]:
    """Return crops of drawn people as the network takes them, float32 (`number`, 3, H, W)."""
    cropper = Cropper(spec)
    crops: list[NDArray[np.uint8]] = []
    for index in count():
        scene = draw_scene(seed, "train", index)
        for person in scene.annotations:
            left, top, width, height = person["bbox"]
            bbox = np.array([left, top, left + width, top + height], np.float32)
            crops.append(cropper.cut(scene.image, bbox)[0])
        if len(crops) >= number:
            break
    return cropper.normalise(np.stack(crops[:number]))
