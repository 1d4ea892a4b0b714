"""What goes to the runner and comes back: networks with their options, people's crops, and their outputs."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import sha256, whole, write_json
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import as_made
from posequant.devices.runner import NETWORKS_SCHEMA
from posequant.networks.ncnn import NcnnNetwork, set_options

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """A network of ncnn and a way to run it; see `NcnnNetwork`."""

    files: tuple[Path, Path]
    precision: str
    int8_winograd: bool = False
    packing: bool = True

    @classmethod
    def made(cls, precision: str, files: Sequence[Path]) -> "Way":
        """Return the way to run a `.param` and a `.bin`, which the record of their maker may follow.

        Raises:
            InputError: as `as_made`.
        """
        param, weights = as_made(files)
        return cls((param, weights), precision)

    def options(self) -> dict[str, Any]:
        """Return the fields of `ncnn.Option` that are set for it, the same on every machine."""
        options = SimpleNamespace()
        set_options(options, self.precision, int8_winograd=self.int8_winograd)
        # In an order that is the same in every run.
        return dict(sorted({**vars(options), "use_packing_layout": self.packing}.items()))

    def network(self, spec: ModelSpec) -> NcnnNetwork:
        """Return the network, loaded on this machine; `InputError` as `NcnnNetwork`."""
        return NcnnNetwork(
            *self.files,
            self.precision,
            spec.input_shape,
            spec.output_shapes,
            int8_winograd=self.int8_winograd,
            packing=self.packing,
        )


def write_networks(folder: Path, spec: ModelSpec, ways: Mapping[str, Way]) -> None:
    """Write what the runner takes as its package: the networks, once each, and `networks.json`."""
    with whole(folder) as draft:
        draft.mkdir()
        names: dict[Path, str] = {}
        for path in dict.fromkeys(file for way in ways.values() for file in way.files):
            names[path] = f"{len(names)}-{path.name}"
            shutil.copyfile(path, draft / names[path])
        content = {
            "schema": NETWORKS_SCHEMA,
            "rows": {
                name: {"files": [names[file] for file in way.files], "options": way.options()}
                for name, way in ways.items()
            },
            "sha256": {name: sha256(draft / name) for name in names.values()},
            "input": {
                "size": list(spec.input_size),
                "channels": "RGB" if spec.to_rgb else "BGR",
                "mean": list(spec.mean),
                "std": list(spec.std),
            },
        }
        write_json(draft / "networks.json", content)


def write_people(path: Path, crops: NDArray[np.uint8]) -> None:
    """Write crops, uint8 (N, H, W, 3), as the runner takes them."""
    with whole(path) as draft:
        np.savez(draft, crops=crops)


@dataclass(frozen=True)
class Result:
    """What a runner gave back, a zip archive of pieces."""

    path: Path

    def outputs(self, row: str, network: NcnnNetwork) -> list[Floats]:
        """Return the outputs of a row for all people, in order, as `network` gives them here.

        Raises:
            InputError: the archive is damaged, or the outputs are not those of such a network.
        """
        pieces = [self._arrays(name) for name in self.names(rf"outputs-{re.escape(row)}-\d+\.npz")]
        try:
            return [
                np.concatenate([piece[name].reshape(-1, *shape) for piece in pieces])
                for name, shape in zip(network.output_names, network.output_shapes, strict=True)
            ]
        except (KeyError, ValueError) as error:
            raise InputError(f"{self.path}: has not the outputs of {row}. Delete it and run again.") from error

    def layers(self, row: str, person: int) -> dict[str, Floats]:
        """Return the values of all blobs of a row for one person, by the blobs' names; `InputError` as `outputs`."""
        return self._arrays(f"layers-{row}-{person:05d}.npz")

    def require_run(self, rows: Sequence[str]) -> None:
        """Raise `InputError` unless every one of `rows` ran."""
        for row in rows:
            if failed := self.json(f"load-{row}.json").get("failed"):
                raise InputError(f"{self.path}: {row} does not run there: {failed}")

    def json(self, name: str) -> Any:
        """Return the content of a piece of JSON; `InputError` if it is missing or damaged."""
        try:
            with self._opened() as archive:
                return json.loads(archive.read(name))
        except (KeyError, ValueError, BadZipFile) as error:
            raise self._damaged(name) from error

    def names(self, pattern: str) -> list[str]:
        """Return the names of the pieces that match a regular expression, in order."""
        with self._opened() as archive:
            return sorted(name for name in archive.namelist() if re.fullmatch(pattern, name))

    def _arrays(self, name: str) -> dict[str, Floats]:
        try:
            with self._opened() as archive, archive.open(name) as stream, np.load(stream) as arrays:
                return dict(arrays)
        except (KeyError, ValueError, EOFError, BadZipFile) as error:
            raise self._damaged(name) from error

    def _damaged(self, name: str) -> InputError:
        return InputError(f"{self.path}: {name} in it is missing or damaged. Delete it and run again.")

    def _opened(self) -> ZipFile:
        try:
            return ZipFile(self.path)
        except (BadZipFile, OSError) as error:
            raise InputError(f"{self.path}: not the result of a run, or damaged. Delete it and run again.") from error
