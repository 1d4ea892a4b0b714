"""A network in ncnn. What ncnn's Python module answers with a crash or with garbage is an `InputError` here."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import ncnn
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import named_as
from posequant.base.supervision import doing, note
from posequant.ncnn_format.model import PAIR_HINT, Layer, NcnnModel, is_grouped, weighted_inputs
from posequant.networks.base import join_rows, require_crops
from posequant.networks.vulkan import Device

# ncnn.Option fields of each precision that are on; all others of these are off (ncnn: src/option.h).
_PRECISION_OPTIONS = {
    "fp32": set[str](),
    "fp16": {"use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"},
    "bf16": {"use_bf16_packed", "use_bf16_storage"},
    "int8": {"use_int8_inference", "use_int8_packed", "use_int8_storage", "use_int8_arithmetic"},
}


class NcnnNetwork:
    """A pose network run by ncnn on the CPU, one thread per call, or on a Vulkan device.

    `forward` may be called from several threads at once: the weights are loaded once and ncnn releases the interpreter
    lock while it computes. A Vulkan device computes one crop at a time: threads wait for each other.

    Precisions, by ncnn's options: `fp32` has all reduced storage and arithmetic off; `fp16` and `bf16` have theirs on
    (on x86 ncnn computes fp16 in float32, so there only a float16 `.bin` makes a difference); `int8` runs the layers
    that carry an INT8 mark in INT8, the others in float32.

    Attributes:
        input_shape: channels, height and width of a crop.
        output_names: the outputs, `out0`, `out1`, ...
        output_shapes: shape of each for one crop.
        device: the Vulkan device; None for the CPU.
    """

    def __init__(
        self,
        param: Path,
        bin_: Path,
        precision: str,
        input_shape: tuple[int, int, int],
        output_shapes: Sequence[tuple[int | None, ...]] | None = None,
        *,
        int8_winograd: bool | None = None,
        packing: bool = True,
        device: Device | None = None,
    ) -> None:
        """Load the network and run it once on zeros.

        Args:
            param: the `.param` file.
            bin_: the `.bin` file that was written with it.
            precision: one of `fp32`, `fp16`, `bf16`, `int8`.
            input_shape: channels, height and width of a crop.
            output_shapes: shape of each output for one crop, None for a size that may be any; as ncnn gives them where
                it is None. Where pnnx finds operators that mix the axes, as in attention, it keeps the batch's axis of
                1 in the network: given the shapes, `forward` drops it.
            int8_winograd: whether INT8 3x3 convolutions may use Winograd's algorithm. It can overflow silently where
                weights exceed 6 bits, takes several times the memory and is no faster on x86: off by default. On a
                Vulkan device it is on by default, as ncnn has it. Without overflow the sums are the same.
            packing: whether channels may lie side by side in memory, as ncnn has it by default. Without, INT8 is
                slower, and of the same bits on x86 and ARM.
            device: the Vulkan device to run it on; None for the CPU.

        Raises:
            InputError: if a file is missing, damaged or not the other's, if the model's INT8 marks do not fit the
                precision, if ncnn is known to compute a layer wrongly in it, if the network does not take such crops
                or give such outputs, or if the Vulkan device cannot run it.
        """
        if precision not in _PRECISION_OPTIONS:
            raise InputError(f"{precision!r} is no precision of ncnn. Choose one of {', '.join(_PRECISION_OPTIONS)}.")
        # Reading the model compares the two files byte by byte before ncnn, which would crash on them, sees them.
        self._layers = NcnnModel.read(param, bin_).layers
        self._param = param
        self.input_shape = input_shape
        self._check_layers(precision)
        self._input, self.output_names = _input_and_outputs(self._layers, param)
        self._blobs = {top for layer in self._layers for top in layer.tops}

        self.device = device
        self._turn = Lock()
        on = f" on the Vulkan device {device.name}" if device else ""
        with doing(f"loaded {param} in ncnn{on}"):
            self._net = load_net(param, bin_, precision, int8_winograd=int8_winograd, packing=packing, device=device)
            if device:
                self._check_layers_on_cpu()
            self.output_shapes = self._try_out()
        if output_shapes is not None:
            self.output_shapes = _without_batch(self.output_shapes, output_shapes, param)

    @classmethod
    def of(
        cls,
        model: NcnnModel,
        precision: str,
        input_shape: tuple[int, int, int],
        output_shapes: Sequence[tuple[int | None, ...]] | None = None,
        *,
        packing: bool = True,
    ) -> "NcnnNetwork":
        """Load a model that is in memory, by way of files that are gone when it is loaded; else as the constructor."""
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "model.param"), Path(folder, "model.bin")
            model.write(*files)
            with named_as(files[0], "the network"):
                network = cls(*files, precision, input_shape, output_shapes, packing=packing)
        # How later messages name it.
        network._param = Path("the network")
        return network

    def forward_on_threads(self, crops: NDArray[np.float32], threads: int) -> list[NDArray[np.float32]]:
        """Return what `forward` does; so many crops are computed at a time.

        Raises:
            InputError: as `forward`, and if a crop or an output holds NaN or infinity.
        """
        self._check_crops(crops)
        with ThreadPoolExecutor(threads) as pool:
            rows = list(pool.map(lambda crop: self.forward(crop[np.newaxis]), crops))
        outputs = join_rows(rows)
        for name, output in zip(self.output_names, outputs, strict=True):
            if damaged := [place for place, row in enumerate(output) if not np.isfinite(row).all()]:
                raise self._not_finite(name, f"crop {damaged[0]}")
        return outputs

    def forward(self, crops: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run the network on crops, one after the other.

        Args:
            crops: float32 array (N, channels, height, width), normalised as the network expects and finite: ncnn
                computes garbage from NaN.

        Returns:
            The network's outputs `out0`, `out1`, ..., each a float32 array (N, ...).

        Raises:
            InputError: if the crops have another type or shape.
        """
        require_crops(crops, self.input_shape)
        if not len(crops):
            return [np.empty((0, *shape), np.float32) for shape in self.output_shapes]
        return join_rows([self._run(crop) for crop in crops])

    def activations(self, crop: NDArray[np.float32], blobs: list[str]) -> Iterator[NDArray[np.float32]]:
        """Run the network on one crop and yield what flows through some of its blobs, one at a time.

        Args:
            crop: float32 array (channels, height, width).
            blobs: names of blobs, in the order in which the `.param` makes them (ncnn frees what it has passed).

        Yields:
            The values of each blob: a float32 array, valid on its own.

        Raises:
            InputError: as `forward_on_threads`, and if the network has no such blob.
        """
        self._check_crops(crop[np.newaxis])
        if unknown := [blob for blob in blobs if blob not in self._blobs]:
            raise InputError(f"{self._param}: there is no blob {unknown[0]}.")
        extractor = self._extractor(crop)
        for blob in blobs:
            yield self._extract(extractor, blob, "the crop given")

    def blob_sizes(self) -> dict[str, int]:
        """Return the number of values of each blob for one crop, by name."""
        names = [top for layer in self._layers for top in layer.tops]
        maps = self.activations(np.zeros(self.input_shape, np.float32), names)
        return {name: values.size for name, values in zip(names, maps, strict=True)}

    def resume(self, blobs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Compute the outputs of one crop from the middle of the network on.

        Args:
            blobs: values of blobs, by name, from which all outputs can be computed. What lies before is not.

        Returns:
            The outputs as ncnn shapes them, each a float32 array.

        Raises:
            InputError: ncnn cannot compute an output, or it is not finite.
        """
        extractor = self._net.create_extractor()
        for blob, values in blobs.items():
            extractor.input(blob, to_mat(values))
        return [self._extract(extractor, name, "the crop given") for name in self.output_names]

    def forward_changed(
        self, crop: NDArray[np.float32], changes: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]]
    ) -> list[NDArray[np.float32]]:
        """Compute the outputs of one crop with some blobs changed on the way.

        Args:
            crop: float32 array (channels, height, width).
            changes: for blobs by name, in the order in which the `.param` makes them, what to make of their values. A
                blob has one reader, so only that layer sees the change.

        Returns:
            The outputs as ncnn shapes them, each a float32 array.

        Raises:
            InputError: as `forward_on_threads`.
        """
        self._check_crops(crop[np.newaxis])
        extractor = self._extractor(crop)
        for blob, change in changes.items():
            values = change(self._extract(extractor, blob, "the crop given"))
            extractor.input(blob, to_mat(values))
        return [self._extract(extractor, name, "the crop given") for name in self.output_names]

    def device_record(self) -> dict[str, Any] | None:
        """Return what is recorded of the Vulkan device that the network runs on; None for the CPU.

        Returns:
            `name`, `kind` and `driver` of the device; `fp16`, what it does with float16: `arithmetic`, or `storage`
            where it sums in float32, None in other precisions; `on_cpu`, the types of the layers that ncnn computes on
            the CPU because it has no Vulkan kernel for them.
        """
        if not self.device:
            return None
        options, fp16 = self._net.opt, None
        if options.use_fp16_packed or options.use_fp16_storage:
            fp16 = "arithmetic" if options.use_fp16_arithmetic else "storage"
        on_cpu = sorted({layer.type for layer in self._layers if layer.name in self._on_cpu()})
        named = {"name": self.device.name, "kind": self.device.kind, "driver": self.device.driver}
        return {**named, "fp16": fp16, "on_cpu": on_cpu}

    def _check_layers(self, precision: str) -> None:
        marked = [layer.name for layer in self._layers if layer.int8_term]
        if precision == "int8" and not marked:
            raise InputError(f"{self._param}: no layer is marked as INT8. Quantize the model first.")
        if precision != "int8" and marked:
            raise InputError(f"{self._param}: layer {marked[0]} is INT8, so the model cannot be run as {precision}.")
        # ncnn 1.0.20261020 reads memory that is not their own, on x86 at least: values up to 1e31, or NaN.
        grouped = [layer.name for layer in self._layers if is_grouped(layer)]
        if precision == "bf16" and grouped:
            raise InputError(
                f"{self._param}: ncnn computes grouped convolutions such as {grouped[0]} wrongly in bf16. Leave "
                "ncnn-bf16 out of the variants."
            )

    def _on_cpu(self) -> set[str]:
        """Return the names of the layers that have no Vulkan kernel: ncnn computes them on the CPU, without a word."""
        return {layer.name for layer in self._net.layers() if not layer.support_vulkan}

    def _check_layers_on_cpu(self) -> None:
        on_cpu = self._on_cpu()
        # What leaves the CPU in INT8, ncnn takes for float on its way to the device, and crashes.
        requantized = [layer.name for layer in self._layers if layer.int8_term > 100 and layer.name in on_cpu]
        if requantized:
            raise InputError(
                f"{self._param}: layer {requantized[0]} hands on INT8 and has no Vulkan kernel, as no INT8 layer has "
                "that is padded with another value than 0; ncnn would crash behind it. Quantize with `target: vulkan` "
                "in the study, by which nothing is padded so."
            )

    def _try_out(self) -> list[tuple[int, ...]]:
        """Run the network on zeros, layer by layer, and return the shapes of its outputs.

        A layer whose input has not as many channels as its weights are made for reads memory that is not its own: it is
        an error before ncnn computes it. Where ncnn crashes on a layer, it is noted which.
        """
        extractor = self._extractor(np.zeros(self.input_shape, np.float32))
        for layer in self._layers:
            taken = [self._mat(extractor, blob) for blob in layer.bottoms]
            note(f"computed layer {layer.name} ({layer.type}) of {self._param} in ncnn")
            inputs = weighted_inputs(layer)
            if inputs is None:
                continue
            shape = self._finite(np.array(taken[0]), layer.bottoms[0], "a crop of zeros").shape
            found = {prod(shape), shape[-1]} if layer.type == "InnerProduct" else {shape[0]}
            if inputs not in found:
                raise InputError(
                    f"{self._param}: layer {layer.name} has weights for {inputs} inputs, but gets {shape} from crops "
                    f"of {self.input_shape}. Use crops of the size that the model was converted for."
                )
        return [self._extract(extractor, name, "a crop of zeros").shape for name in self.output_names]

    def _check_crops(self, crops: NDArray[np.float32]) -> None:
        # ncnn crashes on other types, and computes garbage from other shapes and from NaN.
        require_crops(crops, self.input_shape)
        if not np.isfinite(crops).all():
            raise InputError("a crop holds NaN or infinity. Check how it was normalised.")

    def _run(self, crop: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        if self.device is None:
            return self._outputs(crop)
        ran = f"ran {self._param} on the Vulkan device {self.device.name}, whose driver may be at fault"
        with self._turn, doing(ran):
            return self._outputs(crop)

    def _outputs(self, crop: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        extractor = self._extractor(crop)
        return [
            self._take(extractor, name).reshape(1, *shape)
            for name, shape in zip(self.output_names, self.output_shapes, strict=True)
        ]

    def _extractor(self, crop: NDArray[np.float32]) -> Any:
        extractor = self._net.create_extractor()
        if extractor.input(self._input, to_mat(crop)) != 0:
            raise InputError(f"{self._param}: ncnn takes no input at blob {self._input}.")
        return extractor

    def _extract(self, extractor: Any, blob: str, which: str) -> NDArray[np.float32]:
        return self._finite(self._take(extractor, blob), blob, which)

    def _finite(self, values: NDArray[np.float32], blob: str, which: str) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise self._not_finite(blob, which)
        return values

    def _take(self, extractor: Any, blob: str) -> NDArray[np.float32]:
        return np.array(self._mat(extractor, blob))

    def _mat(self, extractor: Any, blob: str) -> Any:
        """Let ncnn compute a blob, and return its Mat."""
        status, mat = extractor.extract(blob)
        # An array made of an empty Mat is a segmentation fault.
        if status != 0 or mat.empty():
            raise InputError(f"{self._param}: ncnn fails to compute blob {blob} from a crop of {self.input_shape}.")
        return mat

    def _not_finite(self, blob: str, which: str) -> InputError:
        return InputError(f"{self._param}: blob {blob} holds NaN or infinity for {which}.")


def to_mat(values: NDArray[np.float32]) -> Any:
    """Return an `ncnn.Mat` with a copy of `values`, in memory of its own, aligned as ncnn's layers want it."""
    # A Mat made of an array borrows its memory: the array must live until the Mat is cloned, so it has a name.
    contiguous = np.ascontiguousarray(values)
    return ncnn.Mat(contiguous).clone()


def _without_batch(
    found: list[tuple[int, ...]], expected: Sequence[tuple[int | None, ...]], param: Path
) -> list[tuple[int, ...]]:
    """Return the shapes `found` without the batch's axis of 1 where they have one; `InputError` if they do not fit."""
    shapes = []
    for shape, wanted in zip(found, expected, strict=False):
        one = shape[1:] if len(shape) == len(wanted) + 1 and shape[0] == 1 else shape
        if len(one) == len(wanted) and all(size in (None, has) for has, size in zip(one, wanted, strict=True)):
            shapes.append(one)
    if not len(shapes) == len(found) == len(expected):
        sizes = ["x".join("?" if size is None else str(size) for size in wanted) for wanted in expected]
        raise InputError(f"{param}: its outputs for a crop are {found}, but the codec reads {', '.join(sizes)}.")
    return shapes


def load_net(
    param: Path,
    bin_: Path,
    precision: str,
    *,
    int8_winograd: bool | None = None,
    packing: bool = True,
    device: Device | None = None,
) -> ncnn.Net:
    """Return ncnn's own network of two files, as an application loads it: nothing is checked but what ncnn checks.

    Where ncnn would leave a Vulkan device for the CPU, or crash on it, that is an error.

    Args:
        param: the `.param`.
        bin_: the `.bin` that belongs to it.
        precision: one of `fp32`, `fp16`, `bf16`, `int8`.
        int8_winograd: see `NcnnNetwork`.
        packing: see there, too.
        device: see there, too.

    Raises:
        InputError: ncnn refuses a file, or the device lacks what the precision needs.
    """
    net = ncnn.Net()
    set_options(net.opt, precision, int8_winograd=int8_winograd, vulkan=device is not None)
    net.opt.use_packing_layout = packing
    if device:
        net.set_vulkan_device(device.index)
    if net.load_param(str(param)) != 0:
        raise InputError(f"{param}: ncnn cannot load it; its reason is above. Convert the model again.")
    if device:
        _require_device(net, device, precision)
    if net.load_model(str(bin_)) != 0:
        raise InputError(f"{bin_}: ncnn cannot load it; its reason is above. {PAIR_HINT}")
    return net


def _require_device(net: ncnn.Net, device: Device, precision: str) -> None:
    """Raise `InputError` unless a network that has its layers, but no weights yet, will run on a device.

    ncnn switches off what a device lacks. Without the options below it computes in float32, and of INT8 weights it
    crashes.
    """
    if not net.opt.use_vulkan_compute:
        raise InputError(f"ncnn cannot use the Vulkan device {device.name}. Update its driver, or choose another.")
    needed = {"fp16": ("use_fp16_packed", "use_fp16_storage"), "int8": ("use_int8_packed", "use_int8_storage")}
    if precision in needed and not any(getattr(net.opt, switch) for switch in needed[precision]):
        raise InputError(
            f"the Vulkan device {device.name} cannot hold numbers of {precision}. Leave that row out of the variants, "
            "or choose another device."
        )


def set_options(options: Any, precision: str, *, int8_winograd: bool | None = None, vulkan: bool = False) -> None:
    """Set the fields of an `ncnn.Option` for a precision, as for `NcnnNetwork`, and for one thread."""
    for switch in set().union(*_PRECISION_OPTIONS.values()):
        setattr(options, switch, switch in _PRECISION_OPTIONS[precision])
    options.num_threads = 1
    options.use_vulkan_compute = vulkan
    options.use_winograd_convolution = precision != "int8" or (vulkan if int8_winograd is None else int8_winograd)


def _input_and_outputs(layers: list[Layer], param: Path) -> tuple[str, list[str]]:
    """Return the name of the one input blob, and those of the blobs that no layer reads: `out0`, `out1`, ..."""
    inputs = [layer.tops[0] for layer in layers if layer.type == "Input"]
    if len(inputs) != 1:
        raise InputError(f"{param}: the network has {len(inputs)} inputs; a pose network has one.")
    read = {blob for layer in layers for blob in layer.bottoms}
    outputs = [top for layer in layers for top in layer.tops if top not in read]
    return inputs[0], sorted(outputs, key=lambda name: (len(name), name))
