"""Tiny mmpose networks with random weights, and ONNX files made by hand."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from mmengine import Config
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from posequant.base.files import write_json
from posequant.base.model_spec import ModelSpec
from posequant.base.openmmlab import build_model, load_config
from posequant.export.describe import describe_mmpose
from posequant.export.export import export_verified, write_deploy_config
from posequant.workflow.settings.export import Export

Result = TypeVar("Result")

CONFIG = """
default_scope = 'mmpose'
codec = dict({codec}, input_size=(64, 96))
model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4),
    neck=None,
    head=dict({head}, decoder=codec),
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True))
test_dataloader = dict(dataset=dict(type='CocoDataset', pipeline=[
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale', padding=1.3),
    dict(type='TopdownAffine', input_size=codec['input_size'], use_udp=True),
    dict(type='PackPoseInputs')]))
"""
HEATMAP = {
    "codec": "type='MSRAHeatmap', heatmap_size=(16, 24), sigma=2",
    "head": "type='HeatmapHead', in_channels=32, out_channels=17, deconv_out_channels=(8, 8, 8), "
    "deconv_kernel_sizes=(4, 4, 4), loss=dict(type='KeypointMSELoss')",
}
SIMCC = {
    "codec": "type='SimCCLabel', sigma=6.0, simcc_split_ratio=2.0",
    "head": "type='SimCCHead', in_channels=32, out_channels=17, input_size=(64, 96), in_featuremap_size=(2, 3), "
    "simcc_split_ratio=2.0, deconv_out_channels=None, loss=dict(type='KLDiscretLoss')",
}


@dataclass(frozen=True)
class ExportedNetwork:
    """A network on its way: each file as the steps before it wrote it."""

    config: Path
    checkpoint: Path
    spec: ModelSpec
    deploy_config: Path
    crops: NDArray[np.float32]
    onnx: Path
    record: dict[str, Any]

    def build(self) -> tuple[Config, torch.nn.Module]:
        """The config and the network, with its weights."""
        config = load_config(self.config)
        return config, build_model(config, self.checkpoint)


def write_config(folder: Path, parts: dict[str, str] = HEATMAP) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.py"
    path.write_text(CONFIG.format(**parts))
    return path


def write_checkpoint(config: Path, path: Path) -> Path:
    """Random weights, with batch norms that do something and heatmaps of the size of one."""
    model = build_model(load_config(config), None)
    draw = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=draw))
        elif name.endswith(("running_mean", "bias")):
            value.copy_(0.1 * torch.randn(value.shape, generator=draw))
    torch.save({"state_dict": state, "meta": {}}, path)
    return path


def random_crops(count: int = 2, shape: Sequence[int] = (3, 96, 64)) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


@cache
def exported_network(base: Path, kind: str = "heatmap") -> ExportedNetwork:
    """Export a tiny network, once in a test run, into a folder of its own under `base`."""
    folder = base / f"exported-{kind}"
    config = write_config(folder, {"heatmap": HEATMAP, "simcc": SIMCC}[kind])
    checkpoint = write_checkpoint(config, folder / "checkpoint.pth")
    spec = describe_mmpose(kind, config)
    deploy_config = folder / "deploy_config.py"
    write_deploy_config(spec, Export(), deploy_config)
    crops = random_crops()
    record = export_verified(config, checkpoint, deploy_config, spec=spec, crops=crops, target=folder / "model.onnx")
    write_json(folder / "export.json", record)
    return ExportedNetwork(config, checkpoint, spec, deploy_config, crops, folder / "model.onnx", record)


def save_onnx_by_hand(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray[Any]],
    input_shape: Sequence[int | str] = (1, 3, 8, 6),
    output_shape: Sequence[int | str] = (1, 17, 8, 6),
    *,
    opset: int = 13,
    weights_as_inputs: bool = False,
) -> Path:
    """Write an ONNX file from `x` to `y` without any check."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)]
    if weights_as_inputs:
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in weights.items()
        ]
    graph = helper.make_graph(
        list(nodes),
        "by_hand",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    domains = {node.domain for node in nodes} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=3 if weights_as_inputs else 7), path)
    return path


def convolution_weights(channels: int = 17) -> dict[str, NDArray[Any]]:
    return {"weight": np.random.default_rng(0).standard_normal((channels, 3, 1, 1)).astype(np.float32)}


def in_a_process_of_its_own(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in a new process and return what it returns, or raise what it raises.

    NNCF changes PyTorch when it is imported: a training in the same process then crashes.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
