"""Converting an ONNX network to ncnn, by pnnx, and to OpenVINO, each checked against ONNX Runtime."""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from posequant.base.errors import InputError
from posequant.base.files import named_as, require_file, whole
from posequant.base.model_spec import ModelSpec
from posequant.base.supervision import crash_of
from posequant.base.verify import MIN_SQNR_DB, Tensor, hashes, require_same, run_onnx, verification, versions
from posequant.export.audit import ncnn_has_layer
from posequant.export.lost import lost_operator
from posequant.ncnn_format.model import read_param

_LOG_LINES = 8
_REPLACE = "Write it in another way in the network, or export the network again with another opset."


def convert_to_ncnn(
    onnx_file: Path,
    spec: ModelSpec,
    crops: Tensor,
    weights: Literal["fp32", "fp16"],
    *,
    out: tuple[Path, Path],
) -> dict[str, Any]:
    """Convert an ONNX file to ncnn by pnnx and check that ncnn computes what ONNX Runtime does.

    Args:
        onnx_file: the network, simplified.
        spec: of the network.
        crops: float32 (N, 3, H, W).
        weights: type of the weights in the .bin. ncnn2int8 wants fp32.
        out: ncnn's `.param` and `.bin` to write; the network's input is `in0`, its outputs are `out0`, `out1`, ...

    Returns:
        The record: layers by type, difference, tolerance, versions, sha256.

    Raises:
        InputError: pnnx fails or crashes, or leaves a layer that ncnn lacks; ncnn crashes on what pnnx made, or its
            output differs. Where an operator is lost on the way, the message names it.
    """
    from posequant.networks.ncnn import NcnnNetwork

    require_file(onnx_file)
    with tempfile.TemporaryDirectory() as folder, named_as(folder, f"{onnx_file}, converted"):
        draft_param, draft_bin, log = _run_pnnx(onnx_file, spec, weights, Path(folder))
        layers = _require_layers(draft_param, spec, onnx_file, log)
        minimum = MIN_SQNR_DB[weights]

        def load() -> NcnnNetwork:
            return NcnnNetwork(draft_param, draft_bin, "fp32", spec.input_shape, spec.output_shapes)

        try:
            if crash := crash_of(lambda: load().forward(crops[:1])):
                raise InputError(f"{onnx_file}: pnnx made a network on which {crash}.")
            outputs = load().forward(crops)
            reference = run_onnx(onnx_file, crops)
            difference = require_same(reference, outputs, minimum, f"{onnx_file}: conversion to ncnn")
        except InputError as error:
            lost = lost_operator(onnx_file, draft_param, draft_bin, crops[0], str(error))
            if not lost:
                raise
            raise InputError(f"{str(error).rstrip('.')}.{lost} {_REPLACE}") from error
        with whole(out[0]) as whole_param, whole(out[1]) as whole_bin:
            shutil.copyfile(draft_param, whole_param)
            shutil.copyfile(draft_bin, whole_bin)
    return {
        "reference": f"{onnx_file.name} in ONNX Runtime",
        **verification(difference, crops, minimum),
        "weights": weights,
        "layers": layers,
        "sha256": hashes(*out),
        "versions": versions("pnnx", "ncnn", "onnxruntime"),
    }


def convert_to_openvino(onnx_file: Path, spec: ModelSpec, crops: Tensor, xml: Path) -> dict[str, Any]:
    """Convert an ONNX file to OpenVINO's format in fp32 and check that OpenVINO computes what ONNX Runtime does.

    Args:
        onnx_file: the network, simplified.
        spec: of the network.
        crops: float32 (N, 3, H, W).
        xml: .xml to write; the weights are written beside it, as .bin.

    Returns:
        The record: difference, tolerance, versions, sha256.

    Raises:
        InputError: OpenVINO cannot convert the network, or its output differs.
    """
    import openvino

    from posequant.networks.openvino import OpenVinoNetwork

    require_file(onnx_file)
    with whole(xml) as draft:
        try:
            openvino.save_model(openvino.convert_model(onnx_file), draft, compress_to_fp16=False)
        except Exception as error:  # its frontends' errors share no base class
            raise InputError(f"{onnx_file}: OpenVINO cannot convert the network: {error}") from error
        network = OpenVinoNetwork(draft, draft.with_suffix(".bin"), spec, threads=1)
        minimum = MIN_SQNR_DB["fp32"]
        reference = run_onnx(onnx_file, crops)
        difference = require_same(reference, network.forward(crops), minimum, f"{onnx_file}: conversion to OpenVINO")
        with whole(xml.with_suffix(".bin")) as draft_bin:
            draft.with_suffix(".bin").rename(draft_bin)
    return {
        "reference": f"{onnx_file.name} in ONNX Runtime",
        **verification(difference, crops, minimum),
        "sha256": hashes(xml, xml.with_suffix(".bin")),
        "versions": versions("openvino", "onnxruntime"),
    }


def _run_pnnx(onnx_file: Path, spec: ModelSpec, weights: str, folder: Path) -> tuple[Path, Path, str]:
    """Run pnnx in `folder`, where it leaves a dozen by-products; return the .param and .bin it wrote, and its log."""
    shutil.copyfile(onnx_file, folder / "model.onnx")
    shape = ",".join(str(size) for size in (1, *spec.input_shape))
    command = [str(_pnnx()), "model.onnx", f"inputshape=[{shape}]", f"fp16={int(weights == 'fp16')}"]
    run = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    param, bin_ = folder / "model.ncnn.param", folder / "model.ncnn.bin"
    if run.returncode == 0 and param.is_file() and bin_.is_file():
        return param, bin_, run.stdout
    how = f"crashed (signal {-run.returncode})" if run.returncode < 0 else f"failed (exit status {run.returncode})"
    if run.returncode == 0:
        how = "ended without writing a network"
    log = "\n  ".join(run.stdout.splitlines()[-_LOG_LINES:])
    raise InputError(
        f"{onnx_file}: pnnx {how}. Clean the file up with scripts/import_onnx.py, or export the network again with "
        f"opset 11 to 13. Its last words:\n  {log}"
    )


def _pnnx() -> Path:
    # The program itself: its Python wrapper hides by which signal it died.
    package = find_spec("pnnx")
    if package is None or package.origin is None:
        raise InputError("pnnx is not installed; set the environment up again (make result does)")
    return Path(package.origin).with_name("pnnx")


def _require_layers(param: Path, spec: ModelSpec, source: Path, log: str) -> dict[str, int]:
    """Count the layers by type; `InputError` where ncnn lacks one or the blobs have other names."""
    # Before the file is checked as a whole: pnnx doubles names where it leaves operators.
    for type_, name, *_ in (line.split() for line in param.read_text().splitlines()[2:]):
        if not ncnn_has_layer(type_):
            left = re.search(rf"^ignore {re.escape(f'{type_} {name}')} param (.+)$", log, re.MULTILINE)
            raise InputError(
                f"{source}: pnnx leaves '{name}' as a layer of type {type_}"
                f"{f' ({left[1]})' if left else ''}, which ncnn lacks. Replace the operator in the network, or cut it "
                "off if it only post-processes the heatmaps."
            )
    layers = read_param(param)
    blobs = {top for layer in layers for top in layer.tops}
    for blob in ("in0", *(f"out{index}" for index in range(len(spec.output_names)))):
        if blob not in blobs:
            raise InputError(f"{source}: pnnx writes a network without the blob '{blob}'; its inputs or outputs differ")
    return dict(Counter(layer.type for layer in layers).most_common())
