"""What it takes to open a network: time until its first output, and memory."""

import ctypes
import gc
import os
import pickle
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.networks.opening import open_network
from posequant.workflow.settings.precisions import NCNN

LOADS = 3
# Inferences after which the memory of a network does not grow any more.
_INFERENCES = 3


@dataclass(frozen=True)
class Load:
    """What a network takes to open, in a process that has imported its runtime.

    Attributes:
        load_ms: median time from the files to the output of the first crop, in milliseconds.
        memory_mb: by how much the process's own memory grows at its peak, over single inferences, in MB (1e6 bytes);
            median, too. It holds the weights, what the runtime makes of them, and its buffers. Pages of files, such as
            a library's code or weights that the runtime maps, do not count: the system can drop them.
    """

    load_ms: float
    memory_mb: float


def measure_load(first_inference: Callable[[], Callable[[], object]], name: str) -> Load:
    """Measure what it takes to open a network, in processes forked for it.

    Call it before anything is opened in this process: threads do not survive a fork.

    Args:
        first_inference: opens the network, infers a crop and returns what infers another.
        name: of the row, for messages.

    Raises:
        InputError: a process ends without an answer.
    """
    loads = [_in_a_fork(lambda: _measure(first_inference), name) for _ in range(LOADS)]
    return Load(*(statistics.median(of_loads) for of_loads in zip(*loads, strict=True)))


def opener(
    backend: str,
    precision: str,
    artifacts: Sequence[Path],
    spec: ModelSpec,
    crop: NDArray[np.float32],
    *,
    device: str | None = None,
) -> Callable[[], Callable[[], object]]:
    """Return what opens the network of a row as an application does, infers a crop and returns what infers it again.

    ncnn is called without the checks that `NcnnNetwork` makes of the files, which an application does without.

    Args:
        backend: as for `open_network`, like the next three.
        precision: see there.
        artifacts: see there.
        spec: see there.
        crop: float32 (1, 3, H, W).
        device: as for `open_network`. The time to start it belongs to that of loading.
    """

    def first_inference() -> Callable[[], object]:
        infer = _bare_ncnn(backend, precision, artifacts, crop, device) if backend in NCNN else None
        if infer is None:
            network = open_network(backend, precision, artifacts, spec)
            infer = lambda: network.forward(crop)  # noqa: E731
        infer()
        return infer

    return first_inference


def _bare_ncnn(
    backend: str, precision: str, artifacts: Sequence[Path], crop: NDArray[np.float32], device: str | None
) -> Callable[[], object]:
    from posequant.networks.ncnn import load_net, to_mat
    from posequant.networks.vulkan import find_device

    param, weights = artifacts
    net = load_net(param, weights, precision, device=find_device(device) if backend == "ncnn-vulkan" else None)
    inputs, outputs = net.input_names(), net.output_names()

    def infer() -> object:
        extractor = net.create_extractor()
        extractor.input(inputs[0], to_mat(crop[0]))
        return [extractor.extract(name) for name in outputs]

    return infer


def _measure(first_inference: Callable[[], Callable[[], object]]) -> tuple[float, float]:
    # What imports have left free would be taken again without being seen, and so would garbage that is collected now.
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)
    # The peak begins anew: it was that of what has just been given back.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = memory()["RssAnon"]
    start = perf_counter()
    infer = first_inference()
    seconds = perf_counter() - start
    for _ in range(_INFERENCES - 1):
        infer()
    after = memory()
    # The peak counts pages of files, too, which only grow in number: at its time there were no more than now.
    return 1000 * seconds, (after["VmHWM"] - after["RssFile"] - after["RssShmem"] - before) / 1e6


def memory() -> dict[str, int]:
    """Return this process's memory in bytes, by Linux's names in /proc/self/status.

    `RssAnon` is its own, `RssFile` and `RssShmem` are pages of files, `VmHWM` is the most of all three that there has
    been at a time; a forked process begins anew with it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    named = (line.split() for line in lines if line.startswith(("VmHWM:", "RssAnon:", "RssFile:", "RssShmem:")))
    return {name.rstrip(":"): 1024 * int(kilobytes) for name, kilobytes, _ in named}


def _in_a_fork(work: Callable[[], tuple[float, float]], name: str) -> tuple[float, float]:
    """Return what `work` returns in a process of its own; `InputError` where that ends otherwise."""
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            answer = pickle.dumps(work())
        except BaseException as error:
            answer = pickle.dumps(error if isinstance(error, InputError) else repr(error))
        with os.fdopen(writing, "wb") as end:
            end.write(answer)
        # Nothing that the parent would do at its end is done twice.
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as end:
        answer = end.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise InputError(f"{name}: its runtime crashed ({signal.Signals(-code).name}) while it loaded the network")
    said = pickle.loads(answer)
    if isinstance(said, InputError):
        raise said
    if isinstance(said, str):
        raise InputError(f"{name}: cannot be opened: {said}")
    load_ms, memory_mb = said
    return load_ms, memory_mb
