"""From an mmpose config and checkpoint to ONNX, by mmdeploy."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.files import require_file, whole
from posequant.base.model_spec import ModelSpec
from posequant.base.onnx_files import one_line, save_onnx
from posequant.base.openmmlab import build_model, forward_tensors, load_config, make_importable
from posequant.base.verify import MIN_SQNR_DB, Tensor, hashes, require_same, run_onnx, verification, versions
from posequant.export.describe import require_matching_graph
from posequant.workflow.settings.export import Export

if TYPE_CHECKING:
    import torch
    from mmengine import Config
    from onnx import ModelProto


def write_deploy_config(spec: ModelSpec, settings: Export, target: Path) -> None:
    """Write the mmdeploy deploy config of a network for ncnn.

    Args:
        spec: of the network; gives the input size and the names of input and outputs.
        settings: what it says of ONNX and of the ncnn backend.
        target: Python file in mmengine's config format, with the three parts that mmdeploy reads.
    """
    make_importable()
    from mmengine import Config

    # Keys and values as in mmdeploy's own configs: _base_/onnx_config.py, mmpose/pose-detection_static.py,
    # _base_/backends/ncnn.py.
    content = {
        "codebase_config": {"type": "mmpose", "task": "PoseDetection"},
        "onnx_config": {
            "type": "onnx",
            "export_params": True,
            "keep_initializers_as_inputs": False,
            "opset_version": settings.opset,
            "save_file": "model.onnx",
            "input_names": [spec.input_name],
            "output_names": list(spec.output_names),
            "input_shape": list(spec.input_size),
            "dynamic_axes": None,
        },
        # Without `use_vulkan`: mmdeploy's converters do not read it. The same files run on the CPU and on Vulkan, and a
        # variant says on which.
        "backend_config": {"type": "ncnn", "precision": settings.precision},
    }
    with whole(target) as draft:
        Config(content).dump(draft)


def export_onnx(config: "Config", model: "torch.nn.Module", deploy_config: Path) -> "ModelProto":
    """Let mmdeploy export a network to ONNX; the same inputs give the same graph and weights, byte by byte.

    Args:
        config: as `openmmlab.load_config` returns it.
        model: the network, with its weights, as `openmmlab.build_model` returns it.
        deploy_config: what mmdeploy receives, such as `write_deploy_config` writes it.

    Raises:
        InputError: the deploy config is missing or not one for ONNX, or the network holds an operator that the opset
            cannot express.
    """
    make_importable()
    import onnx

    deployment, (width, height) = _read_deploy_config(deploy_config)
    # mmdeploy's rewriters for ncnn write operators of its own, for its own converter from ONNX to ncnn. pnnx and the
    # other runtimes take standard ONNX.
    deployment.backend_config.type = "default"
    # Tracing records which operators run, not the values: any picture of the crop's size will do.
    picture = np.full((height, width, 3), 128, np.uint8)
    with tempfile.TemporaryDirectory() as folder, _torchscript_exporter():
        import torch
        from mmdeploy.apis import torch2onnx
        from torch.onnx.errors import OnnxExporterError

        # mmdeploy reads a checkpoint by itself, and would run what the user's holds if the environment says so.
        weights = str(Path(folder) / "weights.pth")
        torch.save({"state_dict": model.state_dict()}, weights)
        try:
            torch2onnx(picture, folder, "model.onnx", deployment, config.copy(), weights, device="cpu")
        except (OnnxExporterError, NotImplementedError) as error:
            raise InputError(f"{deploy_config}: the network cannot be exported to ONNX: {one_line(error)}") from error
        exported = onnx.load(Path(folder) / "model.onnx")
    for node in exported.graph.node:
        node.ClearField("doc_string")  # source lines, by absolute path
    return exported


def export_verified(
    config: str | Path, checkpoint: Path, deploy_config: Path, *, spec: ModelSpec, crops: Tensor, target: Path
) -> dict[str, Any]:
    """Export a network to ONNX by `export_onnx` and check that ONNX Runtime computes what PyTorch does.

    Args:
        config: path, or name of a config that mmpose ships.
        checkpoint: its weights.
        deploy_config: what mmdeploy receives.
        spec: of the network.
        crops: float32 (N, 3, H, W).
        target: ONNX file to write.

    Returns:
        The record of the export: difference, tolerance, opset, versions, sha256.

    Raises:
        InputError: config or checkpoint are missing or broken, the export fails, or its output differs.
    """
    import torch

    content = load_config(config)
    model = build_model(content, checkpoint)
    try:
        reference = [output.numpy() for output in forward_tensors(model, torch.from_numpy(crops))]
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:  # layers that do not fit
        raise InputError(f"{config}: the network does not run on a crop: {one_line(error)}") from error
    exported = export_onnx(content, model, deploy_config)
    require_matching_graph(spec, exported, deploy_config)
    minimum = MIN_SQNR_DB["fp32"]
    difference = require_same(reference, run_onnx(exported, crops), minimum, f"{checkpoint}: export to ONNX")
    save_onnx(exported, target)
    return {
        "reference": "pytorch",
        **verification(difference, crops, minimum),
        "sha256": hashes(target),
        "opset": exported.opset_import[0].version,
        "versions": versions("torch", "mmpose", "mmdeploy", "onnx", "onnxruntime"),
    }


def _read_deploy_config(path: Path) -> "tuple[Config, tuple[int, int]]":
    """Return a deploy config, and the width and height of the network's input that it names."""
    from mmengine import Config

    require_file(path, "Write it by `write_deploy_config`.")
    try:
        content = Config.fromfile(path)
        width, height = content.onnx_config.input_shape
        backend = content.backend_config.type
    except Exception as error:  # a config is a program: it can fail in any way
        raise InputError(
            f"{path}: not a deploy config with an onnx_config.input_shape [width, height] and a backend_config.type "
            f"({type(error).__name__}: {error}). Write it by `write_deploy_config`."
        ) from error
    if backend != "ncnn":
        raise InputError(f"{path}: its backend is '{backend}', not ncnn. Write it by `write_deploy_config`.")
    return content, (int(width), int(height))


@contextmanager
def _torchscript_exporter() -> Iterator[None]:
    """Make `torch.onnx.export` use the exporter that mmdeploy's rewriters are written for.

    mmdeploy does not pass `dynamo`, whose default is True since PyTorch 2.9. The warnings of both are about that and
    about networks of other kinds.
    """
    import torch

    export = torch.onnx.export

    def export_by_torchscript(*args: Any, **kwargs: Any) -> Any:
        return export(*args, **kwargs, dynamo=False)

    torch.onnx.export = export_by_torchscript
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.onnx.export = export
        logging.disable(level)
