"""Training of a demo's network with mmengine's runner, on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole
from posequant.base.openmmlab import load_config

if TYPE_CHECKING:
    from mmengine import Config
    from torch import Tensor, nn

# Sums of a parallel reduction depend on the number of threads: it is fixed, so that training is reproducible. One
# leaves a core to the data loader, and does not slow down five-fold, as two do, where other work shares the cores.
THREADS = 1


def train(config_path: Path, data: Path, work_dir: Path, epochs: int | None = None) -> "dict[str, Tensor]":
    """Train the network of a config on a dataset that `write_dataset` wrote, and return its weights.

    The runner scores it on the val split on its way. The same config, data and environment give the same weights. A
    run that was interrupted goes on from the last epoch in `work_dir`; its random augmentation then differs from that
    of a run in one piece.

    Args:
        config_path: an mmpose config whose dataset files are relative to `data_root`.
        data: the dataset's folder.
        work_dir: folder for the runner's logs and its checkpoint of each epoch.
        epochs: overrides the config's number of epochs.

    Raises:
        InputError: the config or the data is missing, or `epochs` is not positive.
    """
    if epochs is not None and epochs < 1:
        raise InputError(f"{epochs} epochs were asked for: give a positive number.")
    config = load_config(config_path)
    _set_data(config, data)
    if epochs:
        _set_epochs(config, epochs)
    config.work_dir = str(work_dir)
    config.resume = True
    import torch
    from mmengine.runner import Runner

    torch.set_num_threads(THREADS)
    runner = Runner.from_cfg(config)
    # Convolutions on CPUs are faster on this layout, by 1.3 when this was measured.
    runner.model.to(memory_format=torch.channels_last)
    _train_in_bfloat16(runner.model.backbone)
    with _own_checkpoints_trusted():
        runner.train()
    return {name: value.contiguous() for name, value in runner.model.state_dict().items()}


def save_weights(weights: "dict[str, Tensor]", checkpoint: Path) -> None:
    """Write a checkpoint of weights alone: no optimizer, and nothing that PyTorch would need trust to load."""
    import mmpose
    import torch

    with whole(checkpoint) as draft:
        torch.save({"meta": {"mmpose_version": mmpose.__version__}, "state_dict": weights}, draft)


@contextmanager
def _own_checkpoints_trusted() -> Iterator[None]:
    """Let the runner read its checkpoints again: they hold log buffers, which PyTorch refuses by default."""
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _train_in_bfloat16(backbone: "nn.Module") -> None:
    """Let the backbone compute in bfloat16 while it trains; its weights and its validation stay in float32.

    mmengine's AmpOptimWrapper does this on accelerators only. It halves the time of an epoch on a processor with
    bfloat16 instructions; others are slower, and end with slightly different weights.
    """
    import torch

    forward = backbone.forward

    def mixed(images: "Tensor") -> "list[Tensor]":
        with torch.autocast("cpu", torch.bfloat16, enabled=backbone.training):
            features = forward(images)
        return [feature.float() for feature in features]

    backbone.forward = mixed


def _set_data(config: "Config", data: Path) -> None:
    for split, evaluator in (("train", None), ("val", "val_evaluator"), ("test", "test_evaluator")):
        dataset = config[f"{split}_dataloader"].dataset
        annotations = require_file(data / dataset.ann_file, "Draw the dataset with scripts/demo_dataset.py.")
        dataset.data_root = str(data)
        if evaluator:
            config[evaluator].ann_file = str(annotations)


def _set_epochs(config: "Config", epochs: int) -> None:
    config.train_cfg.max_epochs = epochs
    for schedule in config.param_scheduler:
        if schedule.by_epoch:
            schedule.end = schedule.T_max = epochs
