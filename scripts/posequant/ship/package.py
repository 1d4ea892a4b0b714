"""The archive that an app is built from."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from posequant.base.errors import InputError
from posequant.base.files import read_json, require_file, sha256, whole
from posequant.base.keypoints import COCO
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import as_made
from posequant.evaluate.predictions import device_in
from posequant.networks.opening import open_network
from posequant.ship.codecs import Reading, reading_of
from posequant.ship.description import blobs_of, describe, in_bytes, runtime_of
from posequant.ship.golden import find_golden
from posequant.ship.words import certified, measured
from posequant.workflow.settings.precisions import NCNN

# What the files are, in the order in which the README names them.
_CONTENTS = {
    "model.param": "the network's layers",
    "model.bin": "its weights",
    "model.xml": "the network's layers",
    "model.onnx": "the network",
    "model.table": "ncnn's calibration table: the scales that the network was quantized with",
    "model.json": "what a program needs to know of the network",
    "pose.py": "from an image and a box to keypoints, and a picture of them",
    "self_test.py": "what `python pose.py --self-test` compares",
    "pose.cpp": "the same as both in C++",
    "CMakeLists.txt": "builds it",
    "certificate.md": "what INT8 or another reduced precision costs beside FP32, and how sure that is",
    "certificate.json": "the same as data",
    "golden/image.png": "a drawn person or hand",
    "golden/crop.png": "what the network sees of that",
    "golden/image.ppm": "the same image for `pose.cpp`",
    "golden/crop.ppm": "the same crop for `pose.cpp`",
    "golden/heatmaps.npy": "what the network makes of the crop",
    "golden/keypoints.npy": "x, y and score of each keypoint, in pixels of the image",
    "requirements.txt": "the Python packages, of the versions that all of this was made with",
    "LICENSE": "of the programs",
}
# The earliest that a zip archive can say: the same content gives the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Row:
    """The files of a row that is packed.

    Attributes:
        model: the model description, `model.json`.
        artifacts: files of the network, as for `as_made`.
        metrics: what the row scores, `metrics.json`.
        certificate: `certificate.json` and the page of it, for a row that has one.
        table: ncnn's calibration table, for a row that has one.
    """

    model: Path
    artifacts: Sequence[Path]
    metrics: Path
    certificate: tuple[Path, Path] | None = None
    table: Path | None = None


def write_package(row: Row, out: Path, *, license_file: Path, network_license: str = "") -> None:
    """Write the archive of a row; the same files give the same bytes.

    Args:
        row: what is packed.
        out: the archive to write, .zip.
        license_file: the licence of PoseQuant, under which its programs are.
        network_license: that of the network; empty where it is not known.

    Raises:
        InputError: a file is missing, damaged or does not belong to the others; the network runs in PyTorch, or has a
            codec that the programs do not read.
    """
    spec, made = ModelSpec.load(row.model), as_made(row.artifacts)
    hashes = {path.name: digest for path, digest in made.items()}
    metrics = _of_these_files(row.metrics, row.metrics, hashes)
    if metrics["sha256"]["model"] != sha256(row.model):
        raise InputError(f"{row.metrics}: measured with another model description than {row.model}. Run again.")
    certificate = _of_these_files(row.certificate[0], row.metrics, hashes) if row.certificate else None
    backend, precision = metrics["backend"], metrics["precision"]
    runtime, reading = runtime_of(backend, precision), reading_of(spec)
    network = open_network(backend, precision, list(made), spec, device=device_in(metrics))
    golden = find_golden(network, spec)

    packed = {f"model{path.suffix}": path.read_bytes() for path in made}
    if row.table:
        packed["model.table"] = require_file(row.table).read_bytes()
    if row.certificate:
        data, page = row.certificate
        packed |= {"certificate.json": data.read_bytes(), "certificate.md": require_file(page).read_bytes()}
    packed |= golden.files(portable=backend in NCNN and reading.in_cpp)
    described = describe(
        spec,
        metrics=metrics,
        certificate=certificate,
        runtime=runtime,
        blobs=blobs_of(backend, spec, list(made)),
        golden=golden.described(precision),
        files=packed,
        license=network_license,
    )
    packed["model.json"] = in_bytes(described)
    packed["requirements.txt"] = "".join(f"{name}=={version}\n" for name, version in runtime.packages.items()).encode()
    packed["LICENSE"] = require_file(license_file).read_bytes()
    packed |= _programs(described, spec, reading, certificate)
    with whole(out) as draft:
        draft.write_bytes(_archive(packed))


def _of_these_files(path: Path, metrics: Path, hashes: Mapping[str, str]) -> Any:
    """Return the content of metrics or of a certificate; `InputError` if it is of other files of a network."""
    content = read_json(path)
    try:
        said = content["sha256"]["artifact"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not what a network scores. Delete it and run again.") from error
    if said != hashes:
        raise InputError(f"{path}: measured with other files of the network than {', '.join(hashes)}. Run again.")
    return content


def _programs(
    described: Mapping[str, Any], spec: ModelSpec, reading: Reading, certificate: Mapping[str, Any] | None
) -> dict[str, bytes]:
    """Return the programs of a package and its README, made for the network."""
    backend, runtime = described["runtime"]["name"], described["runtime"]
    cpp = backend == "ncnn" and reading.in_cpp
    names = ["pose.py", "self_test.py", "README.md", *(["pose.cpp", "CMakeLists.txt"] if cpp else [])]
    present = {*described["sha256"], *names, "model.json", "requirements.txt", "LICENSE"}
    values = {
        "model": spec.name,
        "title": runtime["title"],
        "backend": backend,
        "files": runtime["files"],
        "options": runtime["options"],
        "vulkan": runtime["options"].get("use_vulkan_compute", False),
        "version": runtime["version"],
        "version_of": described["versions"],
        "input_name": described["input"]["name"],
        "output_name": described["output"]["name"],
        "shape": described["output"]["shape"],
        "size": spec.input_size,
        "mean": [float(value) for value in spec.mean],
        "std": [float(value) for value in spec.std],
        "to_rgb": spec.to_rgb,
        "padding": float(spec.padding),
        "use_udp": spec.use_udp,
        "codec": reading,
        "golden": described["golden"],
        "keypoints": described["keypoints"],
        "skeleton": ", ".join(f"{{{first}, {second}}}" for first, second in described["skeleton"] or [(0, 0)]),
        "license": described["license"],
        "contents": {name: what for name, what in _CONTENTS.items() if name in present},
        "cpp": cpp,
        "subject": "person" if spec.keypoints == COCO else "object",
        "certified": certified(certificate) if certificate else "",
        "measured": measured(described["evaluation"]),
    }
    own = resources(__package__)
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return {
        name: environment.from_string(own.joinpath(f"{name}.j2").read_text()).render(values).encode() for name in names
    }


def _archive(packed: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(packed):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            # As files that everybody may read, made on a Unix, wherever it is.
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, packed[name])
    return stream.getvalue()
