"""The doors to mmpose: importing it without compiled mmcv operators, and building a network from its config."""

import difflib
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.errors import InputError
from posequant.base.files import require_file

if TYPE_CHECKING:
    import torch
    from mmengine import Config

_COMPILED_OPERATORS = "mmcv._ext"


class _CompiledOperators(types.ModuleType):
    """Stands for mmcv's compiled operators, which no top-down network uses; each raises when it is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: object, **__: object) -> None:
            raise InputError(
                f"the network needs mmcv's compiled operator '{name}', which mmcv-lite lacks; "
                "replace the layer that uses it, or install the full mmcv"
            )

        return missing


def make_importable() -> None:
    """Let `mmpose.models`, `mmpose.apis` and `mmdeploy` be imported beside mmcv-lite, without their start-up noise.

    Call it before the first import of an mm* package. It imports none itself, and may be called again.
    """
    for message in ("pkg_resources is deprecated", "Failed to load image Python extension"):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    mmcv = find_spec("mmcv")
    compiled = mmcv is not None and PathFinder.find_spec(_COMPILED_OPERATORS, mmcv.submodule_search_locations)
    if compiled or _COMPILED_OPERATORS in sys.modules:
        return
    operators = _CompiledOperators(_COMPILED_OPERATORS)
    # mmcv asks for the module's spec before it imports it; one without a loader counts as present.
    operators.__spec__ = ModuleSpec(_COMPILED_OPERATORS, loader=None)
    sys.modules[_COMPILED_OPERATORS] = operators


def find_config(config: Path) -> Path:
    """Return the file of an mmpose config; imports nothing.

    Args:
        config: a path, or the bare name (with or without `.py`) of a config that mmpose ships.

    Raises:
        InputError: there is no such config.
    """
    if config.is_file():
        return config
    mmpose = find_spec("mmpose")
    folders = (mmpose.submodule_search_locations if mmpose else None) or []
    paths = {path.stem: path for folder in folders for path in sorted(Path(folder, ".mim/configs").rglob("*.py"))}
    name = config.name.removesuffix(".py")
    if config.name == str(config) and name in paths:
        return paths[name]
    close = difflib.get_close_matches(name, paths, n=1)
    hint = f" The nearest config that mmpose ships is '{close[0]}'." if close else ""
    raise InputError(f"{config}: no such config, neither a file nor the name of one that mmpose ships.{hint}")


def load_config(config: str | Path, *, to_build: bool = True) -> "Config":
    """Read the mmpose config of a top-down network.

    Args:
        config: a path, or the bare name (with or without `.py`) of a config that mmpose ships, such as
            `td-hm_hourglass52_8xb32-210e_coco-256x256`.
        to_build: whether to import what the config names in `custom_imports`, without which the network cannot be
            built. It usually imports PyTorch and all of mmpose.

    Raises:
        InputError: there is no such config, it cannot be read, or it does not describe a top-down network.
    """
    make_importable()
    from mmengine import Config

    path = find_config(Path(config))
    try:
        content = Config.fromfile(path, import_custom_modules=to_build)
    except Exception as error:  # a config is a program: it can fail in any way
        raise InputError(f"{path}: the config cannot be read: {type(error).__name__}: {error}") from error
    kind = content.get("model", {}).get("type")
    if kind not in ("TopdownPoseEstimator", "mmpose.TopdownPoseEstimator"):
        raise InputError(f"{path}: model.type is {kind!r}; give the config of a TopdownPoseEstimator")
    return content


def build_model(config: "Config", checkpoint: Path | None, seed: int | None = None) -> "torch.nn.Module":
    """Build the network of an mmpose config on the CPU, in evaluation mode.

    Args:
        config: as `load_config` returns it; left unchanged.
        checkpoint: the weights, of mmpose 1.x or 0.x (its `keypoint_head` is renamed by mmpose); None for random ones.
        seed: of the random weights; None means 0.

    Raises:
        InputError: mmpose lacks a part of the network; or the checkpoint is missing, is no checkpoint, or does not fit
            the network: the message names the file and the first key that differs.
    """
    make_importable()
    import torch
    from mmpose.apis import init_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        with warnings.catch_warnings(action="ignore"):
            try:
                model: torch.nn.Module = init_model(config.copy(), checkpoint=None, device="cpu")
            except (ImportError, KeyError) as error:  # a package of OpenMMLab that is not installed, a mistyped layer
                reason = str(error.args[0]).partition(". ")[0]
                raise InputError(f"{config.filename}: mmpose cannot build the network: {reason}") from error
    if checkpoint is not None:
        _load_weights(model, checkpoint)
    return model


def forward_tensors(model: "torch.nn.Module", batch: "torch.Tensor") -> "tuple[torch.Tensor, ...]":
    """Run the network on crops.

    Args:
        model: from `build_model`.
        batch: normalised crops, float32 (N, 3, H, W).

    Returns:
        The raw output: one tensor of heatmaps (N, K, h, w), of the last stage where there are several; for SimCC the
        two tensors (N, K, width * split), (N, K, height * split).
    """
    import torch

    with torch.inference_mode():
        output = model(batch, None, mode="tensor")
    if isinstance(output, list):  # heads with intermediate supervision (CPMHead, MSPNHead) predict from the last stage
        output = output[-1]
    return (output,) if isinstance(output, torch.Tensor) else tuple(output)


@contextmanager
def loadable_globals() -> Iterator[None]:
    """Let `torch.load` accept what old checkpoints and those of mmengine's runner hold besides tensors.

    Other classes and functions stay refused, as a pickle that names them could run a program.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer
    from numpy._core import multiarray

    def statistic(owner: type, name: str) -> Any:
        # A HistoryBuffer names its own statistics this way.
        if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
            raise ValueError(f"getattr of {owner}.{name}")
        return getattr(owner, name)

    functions = [multiarray.scalar, multiarray._reconstruct]
    old_names = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    dtypes = [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    harmless: list[Any] = [*functions, *old_names, np.ndarray, np.dtype, *dtypes, HistoryBuffer]
    with torch.serialization.safe_globals([*harmless, (statistic, "builtins.getattr")]):
        yield


def _load_weights(model: "torch.nn.Module", checkpoint: Path) -> None:
    weights = _read_weights(checkpoint)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # a size differs: the first line is a heading
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(f"{checkpoint}: does not fit the config: {lines[min(1, len(lines) - 1)]}") from error
    for keys, fault in ((missing, "lacks"), (unexpected, "has, and the network has not,")):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(
                f"{checkpoint}: does not fit the config: it {fault} '{keys[0]}'{more}. "
                "Give the checkpoint that belongs to this config."
            )


def _read_weights(checkpoint: Path) -> "dict[str, torch.Tensor]":
    import torch

    require_file(checkpoint, "Give the path of the network's weights.")
    try:
        with loadable_globals():
            content = torch.load(checkpoint, map_location="cpu")
    except Exception as error:  # a damaged file fails in many ways
        if "Unsupported global" in str(error):
            name = str(error).split("Unsupported global: GLOBAL ")[1].split()[0]
            raise InputError(
                f"{checkpoint}: holds a Python object ({name}) besides the weights, and such a file could run a "
                "program. If you trust its origin, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment."
            ) from error
        raise InputError(
            f"{checkpoint}: not a PyTorch checkpoint, or damaged. Fetch it again. "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not weights or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"{checkpoint}: holds no state_dict. Give a checkpoint written by mmpose.")
    return {key.removeprefix("module."): value for key, value in weights.items()}
