"""The C++ library of the installed version of ncnn, built from the sources that PyPI has of it, once."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# What pose networks are made of, and what ncnn makes inside. The others double the time to compile; one that is missing
# is a crash.
LAYERS = {
    *("Input", "Convolution", "ConvolutionDepthWise", "InnerProduct", "BinaryOp", "ReLU", "Clip", "Sigmoid", "Mish"),
    *("HardSwish", "Split", "Interp", "Padding", "Packing", "Cast", "Flatten", "Reshape", "Quantize", "Dequantize"),
    *("Requantize", "Concat", "PixelShuffle", "Pooling", "Gemm", "Bias", "Scale", "Crop"),
}
LEFT_OUT = ("NCNN_BUILD_TOOLS", "NCNN_BUILD_EXAMPLES", "NCNN_BUILD_BENCHMARK", "NCNN_OPENMP", "NCNN_VULKAN")


def ncnn_library() -> Path:
    """The folder of ncnnConfig.cmake; the test is skipped where there is no compiler.

    The library is kept in `~/.cache/posequant`, or in the folder that POSEQUANT_CACHE names.
    """
    if missing := [name for name in ("cmake", "make", "c++") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)} to build ncnn")
    number = version("ncnn")
    cache = Path(os.environ.get("POSEQUANT_CACHE", Path.home() / ".cache/posequant"))
    library = cache / f"ncnn-{number}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # Tests that run beside each other wait for the one that builds.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as workplace:
                build(fetch(number, Path(workplace)), Path(workplace) / "build", Path(workplace) / "library")
                (Path(workplace) / "library").rename(library)
    return library / "lib/cmake/ncnn"


def fetch(number: str, folder: Path) -> Path:
    """Fetch and unpack the sources, those that the lock of the environment names."""

    def download(what: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "ncnn", what]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    done = download(f"ncnn=={number}")
    # The sources call themselves by the day's date: pip finds another version than it asked for, and says where.
    if found := re.search(rf"https?://\S+/ncnn-{re.escape(number)}\.tar\.gz", done.stdout + done.stderr):
        done = download(found[0])
    assert done.returncode == 0, done.stdout + done.stderr
    archive = folder / f"ncnn-{number}.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest in (ROOT / "envs/requirements.lock").read_text(), "not the archive of the lock"
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    return folder / f"ncnn-{number}"


def build(source: Path, place: Path, target: Path) -> None:
    """Build and install the library."""
    known = set(re.findall(r"ncnn_add_layer\((\w+)", (source / "src/CMakeLists.txt").read_text()))
    off = [*LEFT_OUT, *(f"WITH_LAYER_{layer.lower()}" for layer in sorted(known - LAYERS))]
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_INSTALL_PREFIX={target}", *(f"-D{name}=OFF" for name in off)]
    for command in (
        ["cmake", "-S", str(source), "-B", str(place), *options],
        ["cmake", "--build", str(place), "--target", "install", "--parallel", str(os.cpu_count())],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
