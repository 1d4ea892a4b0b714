"""The doors to mmpose: importing it without compiled mmcv operators, and building a network from its config."""

import difflib
import re
import shlex
import sys
import traceback
import types
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posequant.base.errors import InputError
from posequant.base.files import require_file, sha256

if TYPE_CHECKING:
    import torch
    from mmengine import Config

_COMPILED_OPERATORS = "mmcv._ext"
# OpenMMLab ends the names of its checkpoints in the first eight digits of their SHA-256 and the date (mmpose 1.3.2,
# tools/misc/publish_model.py).
_PUBLISHED = re.compile(r"-([0-9a-f]{8})_\d{8}\.pth")
# What torch.load says of a class or function that is not one of those it calls.
_REFUSED_GLOBAL = re.compile(r"(?:Unsupported global: GLOBAL|Trying to load unsupported GLOBAL) (\S+)")


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


@cache
def shipped_folder() -> Path | None:
    """Return the folder of what mmpose ships beside its code, its configs and their index; None without mmpose.

    Imports nothing.
    """
    mmpose = find_spec("mmpose")
    folders = (mmpose.submodule_search_locations if mmpose else None) or []
    return next((path for folder in folders if (path := Path(folder, ".mim")).is_dir()), None)


@cache
def shipped_configs() -> dict[str, Path]:
    """Return the configs that mmpose ships, by their bare names; imports nothing."""
    folder = shipped_folder()
    return {path.stem: path for path in sorted((folder / "configs").rglob("*.py"))} if folder else {}


def find_config(config: Path) -> Path:
    """Return the file of an mmpose config; imports nothing.

    Args:
        config: a path, or the bare name (with or without `.py`) of a config that mmpose ships.

    Raises:
        InputError: there is no such config.
    """
    if config.is_file():
        return config
    paths = shipped_configs()
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
        raise InputError(f"{path}: the config cannot be read: {_reason_in_config(error, path)}") from error
    model = content.get("model")
    if not isinstance(model, dict):
        raise InputError(f"{path}: model is {model!r}; give the config of a TopdownPoseEstimator")
    kind = model.get("type")
    if kind not in ("TopdownPoseEstimator", "mmpose.TopdownPoseEstimator"):
        raise InputError(f"{path}: model.type is {kind!r}; give the config of a TopdownPoseEstimator")
    return content


def published_digits(name: str) -> str:
    """Return the digits that the SHA-256 of a checkpoint begins with by its `name`, or empty where that says nothing.

    OpenMMLab's names end so, as in `hourglass52_coco_256x256-4ec713ba_20200709.pth`.
    """
    found = _PUBLISHED.search(name)
    return found[1] if found else ""


def build_model(config: "Config", checkpoint: Path | None, seed: int | None = None) -> "torch.nn.Module":
    """Build the network of an mmpose config on the CPU, in evaluation mode.

    Args:
        config: as `load_config` returns it; left unchanged.
        checkpoint: the weights, of mmpose 1.x or 0.x (its `keypoint_head` is renamed by mmpose); None for random ones.
        seed: of the random weights; None means 0.

    Raises:
        InputError: mmpose lacks a part of the network, or does not take its settings; or the checkpoint is refused by
            `read_weights`, or does not fit the network: the message names the file and the first key that differs.
    """
    make_importable()
    import torch
    from mmpose.apis import init_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        with warnings.catch_warnings(action="ignore"):
            try:
                model: torch.nn.Module = init_model(config.copy(), checkpoint=None, device="cpu")
            except Exception as error:  # a package that is not installed, a mistyped layer, settings of any kind
                reason = str(error.args[0] if error.args else type(error).__name__).strip().partition("\n")[0]
                reason = reason.partition(". ")[0]
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


def read_weights(checkpoint: Path) -> "dict[str, torch.Tensor]":
    """Return the weights of a checkpoint. Nothing that it holds is run, whatever the environment says.

    A damaged file is refused where that can be seen: by the SHA-256 that its name promises, or by the check sums that
    PyTorch's files have had since version 1.6. An older file without such a name has none; a notice says so.

    Raises:
        InputError: it is missing, damaged, no checkpoint, or holds more than weights; then the message names the code
            that would have been run.
    """
    import torch

    require_file(checkpoint, "Give the path of the network's weights.")
    _require_undamaged(checkpoint)
    try:
        with loadable_globals():
            # Said aloud: a variable of the environment turns the default around.
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        if code := _named_code(checkpoint, error):
            raise InputError(
                f"{checkpoint}: holds code besides the weights: it would call {', '.join(code)} when it is loaded. "
                "Nothing of it was run. Get a file of weights alone from its publisher. If you trust this one, copy "
                "its weights to a file of their own, and name that as the checkpoint: python "
                f"scripts/plain_checkpoint.py --checkpoint {shlex.quote(str(checkpoint))} --out plain.pth"
            ) from error
        raise _not_a_checkpoint(checkpoint, error) from error
    weights = _state_dict(content, checkpoint)
    if not zipfile.is_zipfile(checkpoint) and not published_digits(checkpoint.name):
        print(f"notice: {checkpoint}: an old file without check sums; damage inside its weights cannot be seen")
    return weights


def extract_weights(checkpoint: Path) -> "tuple[dict[str, torch.Tensor], list[str]]":
    """Return the weights of a checkpoint that `read_weights` refuses for its code, and the names of what it would call.

    Nothing of it is run: what does nothing stands in for each class and function that is not PyTorch's own.

    Raises:
        InputError: it is missing, damaged or no checkpoint; or calls what no checkpoint needs, such as `os.system`.
    """
    import torch

    require_file(checkpoint)
    _require_undamaged(checkpoint)
    code: list[str] = []
    while True:
        stand_ins: list[Any] = [(type(name, (_StandIn,), {}), name) for name in code]
        try:
            with loadable_globals(), torch.serialization.safe_globals(stand_ins):
                content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            return _state_dict(content, checkpoint), code
        except InputError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            found = _REFUSED_GLOBAL.search(str(error))
            name = _full_name(found[1]) if found else ""
            if not name or name in code:
                raise _not_a_checkpoint(checkpoint, error) from error
            if "is blocked" in str(error):
                raise InputError(
                    f"{checkpoint}: would call {name} when it is loaded, which no checkpoint needs. Nothing of it was "
                    "run. It may be meant to do harm: delete it, and tell who gave it to you."
                ) from error
            code.append(name)


class _StandIn:
    """Does nothing, in place of a class or function that a checkpoint names."""

    def __new__(cls, *_: object, **__: object) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _load_weights(model: "torch.nn.Module", checkpoint: Path) -> None:
    weights = read_weights(checkpoint)
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


def _require_undamaged(checkpoint: Path) -> None:
    promised = published_digits(checkpoint.name)
    if promised and not (found := sha256(checkpoint)).startswith(promised):
        raise InputError(
            f"{checkpoint}: by its name its SHA-256 begins with {promised}, but it is {found}. The file is damaged or "
            "another one: fetch it again, or give a file of your own another name."
        )
    if not zipfile.is_zipfile(checkpoint):
        return
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile's own, those of decompression, and of what it does not support
        raise _not_a_checkpoint(checkpoint, error) from error
    if damaged:
        raise InputError(
            f"{checkpoint}: damaged: the check sum of '{damaged}' in it is wrong. Fetch it again. (A file that was "
            "saved without check sums, by torch.serialization.set_crc32_options(False), has to be saved with them.)"
        )


def _named_code(checkpoint: Path, error: Exception) -> list[str]:
    """Return the names of what a checkpoint would call; of one before PyTorch 1.6 the first only.

    Empty where that is not what is wrong with it.
    """
    import torch

    refused = _REFUSED_GLOBAL.search(str(error))
    if not refused:
        return []
    try:
        with loadable_globals():
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint))
    except ValueError:  # the format before PyTorch 1.6
        return [_full_name(refused[1])]


def _full_name(name: str) -> str:
    """Return a name as a pickle has it; PyTorch's message leaves `builtins` out."""
    return name if "." in name else f"builtins.{name}"


def _not_a_checkpoint(checkpoint: Path, error: Exception) -> InputError:
    return InputError(f"{checkpoint}: not a PyTorch checkpoint, or damaged. Fetch it again. ({_reason(error)})")


def _state_dict(content: object, checkpoint: Path) -> "dict[str, torch.Tensor]":
    import torch

    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{checkpoint}: holds no state_dict. Give a checkpoint written by mmpose.")
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()):
        raise InputError(f"{checkpoint}: its state_dict holds more than tensors. Give a checkpoint written by mmpose.")
    return {key.removeprefix("module."): value for key, value in weights.items()}


def _reason(error: Exception) -> str:
    """Return what went wrong, in one line."""
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    # After its own words PyTorch advises to switch the check off, and then says what the check found.
    found = re.search(r"WeightsUnpickler error: (.+)", str(error))
    said = found[1] if found else str(error).strip().partition("\n")[0].partition(" In PyTorch 2.6")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _reason_in_config(error: Exception, config: Path) -> str:
    """Return what went wrong while a config was read, in one line, and in which line of it or of one it inherits."""
    place, running = "", str(config)
    for frame, line in traceback.walk_tb(error.__traceback__):
        # mmengine reads a config and those it inherits by this function, and runs their text under no name.
        if frame.f_code.co_name == "_file2dict":
            running = str(frame.f_locals["filename"])
        if frame.f_code.co_filename in ("", running):
            place = f"{running}, line {line}: "
        elif place and frame.f_code.co_filename.endswith("mmengine/config/lazy.py"):
            return f"{place}what a config imports cannot be called in it; name it as the `type` of a dictionary"
    return f"{place}{_reason(error)}"
