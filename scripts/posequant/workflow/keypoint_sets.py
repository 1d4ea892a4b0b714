"""Sets of keypoints by their names: COCO's, those of the datasets that mmpose knows, and files of one's own."""

import ast
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from posequant.base.errors import InputError
from posequant.base.files import require_file
from posequant.base.keypoints import COCO, KeypointSet
from posequant.workflow.settings.base import checked, nearest
from posequant.workflow.settings.keypoints import KeypointFile
from posequant.workflow.yaml_files import check_yaml

_FILES = (".yaml", ".yml", ".json", ".py")


def is_file(source: str) -> bool:
    """Return whether `dataset.keypoints` is the path of a file, not a name."""
    return Path(source).suffix in _FILES


def known_sets() -> dict[str, Path]:
    """Return the files of the sets that the installed mmpose names; imports nothing, and is empty without mmpose."""
    mmpose = find_spec("mmpose")
    folders = (mmpose.submodule_search_locations if mmpose else None) or []
    return {
        path.stem: path
        for folder in folders
        for path in sorted(Path(folder, ".mim/configs/_base_/datasets").glob("*.py"))
        if not path.stem.startswith("__")
    }


@cache
def find_keypoints(source: str) -> KeypointSet:
    """Return a set of keypoints.

    Args:
        source: `coco`; the name of a dataset's metainfo that mmpose ships, as `ap10k`; or the path of a file, in YAML
            or JSON as `KeypointFile` has it, or in Python as mmpose's are. It is read, not run.

    Raises:
        InputError: there is no such set, or the file is not one.
    """
    if source == COCO.name:
        return COCO
    if is_file(source):
        path = Path(source)
        # Its whole name, which is that of no set of mmpose's: some of these are measured in their own way.
        return _of_metainfo(path, path.name) if path.suffix == ".py" else _of_file(path, path.name)
    if source not in (known := known_sets()):
        where = "the name of one that mmpose ships" if known else "install mmpose, which has others"
        raise InputError(
            f"there is no set of keypoints '{source}'; give a file of your own, or {where}"
            f"{nearest(source, [COCO.name, *known])}"
        )
    return _of_metainfo(known[source], source)


def _of_file(path: Path, name: str) -> KeypointSet:
    check_yaml(path)
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    found = checked(KeypointFile, content, what=str(path), prefix=f"{path.name}.")
    swaps = dict(pair for first, second in found.swaps for pair in ((first, second), (second, first)))
    return _set(name, found, swaps)


def _of_metainfo(path: Path, name: str) -> KeypointSet:
    """Return the set that mmpose's metainfo `dataset_info` in a Python file describes."""
    try:
        info = _assigned(path)["dataset_info"]
        points = [info["keypoint_info"][place] for place in range(len(info["keypoint_info"]))]
        names = [str(point["name"]) for point in points]
        swaps = {str(point["name"]): str(point["swap"]) for point in points if point.get("swap")}
        limbs = [[str(name) for name in limb["link"]] for limb in (info.get("skeleton_info") or {}).values()]
        sigmas = [float(value) for value in info.get("sigmas") or ()]
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError, RecursionError) as error:
        raise InputError(f"{path}: not mmpose's metainfo of a dataset: {error!r}") from error
    if strangers := {*swaps.values()} - {*names}:
        raise InputError(f"{path}: a keypoint is swapped with '{min(strangers)}', which is none of them")
    found = {"names": names, "skeleton": limbs, **({"sigmas": sigmas} if sigmas else {})}
    return _set(name, checked(KeypointFile, found, what=str(path), prefix=f"{path.name}."), swaps)


def _set(name: str, found: KeypointFile, swaps: Mapping[str, str]) -> KeypointSet:
    place = {keypoint: number for number, keypoint in enumerate(found.names)}
    partners = list(range(len(found.names)))
    for one, other in swaps.items():
        partners[place[one]] = place[other]
    return KeypointSet(
        name=name,
        names=tuple(found.names),
        skeleton=tuple((place[first], place[second]) for first, second in found.skeleton),
        flip_indices=tuple(partners),
        sigmas=None if found.sigmas is None else tuple(found.sigmas),
    )


def _assigned(path: Path) -> dict[str, Any]:
    """Return what a Python file assigns to names, without running it.

    It may hold literals, `dict(...)`, names that were assigned before, their parts, sums and products.
    `ValueError` at anything else.
    """
    values: dict[str, Any] = {}
    for statement in ast.parse(require_file(path).read_text()).body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            (target,) = statement.targets
            if isinstance(target, ast.Name):
                values[target.id] = _value(statement.value, values)
    return values


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {word.arg: _value(word.value, known) for word in keywords}
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_value(key, known): _value(value, known) for key, value in pairs if key is not None}
        case ast.List(elts=entries) | ast.Tuple(elts=entries):
            return [_value(entry, known) for entry in entries]
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if times <= 1000:
            return _value(left, known) * times
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, known) + _value(right, known)
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.Subscript(value=value, slice=place):
            return _value(value, known)[_value(place, known)]
    return ast.literal_eval(node)
