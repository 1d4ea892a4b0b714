"""Quantizing an OpenVINO network to INT8 by NNCF's post-training quantization."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import openvino as ov

from posequant.base.errors import InputError
from posequant.base.files import whole
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import Tensor, compare, hashes, versions
from posequant.data.crop_files import CROPS
from posequant.networks.openvino import OpenVinoNetwork, is_quantized, read_openvino


def quantize_openvino(xml: Path, weights: Path, spec: ModelSpec, crops: Tensor, target: Path) -> dict[str, Any]:
    """Quantize a network to INT8; the same files and crops give the same bytes.

    NNCF's defaults, with every crop: symmetric weights by output channel, activations by tensor with the mean of the
    crops' extremes, 7 bits for the weights of the first convolution (against saturation on processors without VNNI),
    and its fast bias correction. With the mixed preset (asymmetric activations) or the slow bias correction SimplePose
    came out 0.003 to 0.006 AP lower, which is less than the width of their intervals: no reason to leave the defaults.

    Args:
        xml: the network in fp32.
        weights: its .bin.
        spec: of the network.
        crops: to calibrate on, float32 (N, 3, H, W).
        target: .xml to write; the weights are written beside it, as .bin.

    Returns:
        The record: number of crops, difference to fp32 on the first of them, versions, sha256.

    Raises:
        InputError: a file is missing or damaged, the network is quantized already, or NNCF cannot quantize it.
    """
    import nncf

    reference = OpenVinoNetwork(xml, weights, spec, threads=1)
    model = read_openvino(xml, weights)
    dataset = nncf.Dataset([crop[None] for crop in crops])
    try:
        with _one_thread():
            quantized = nncf.quantize(model, dataset, subset_size=len(crops))
    except Exception as error:  # NNCF's and OpenVINO's own, without a common base
        raise InputError(f"{xml}: NNCF cannot quantize the network: {error}") from error
    if not is_quantized(quantized):
        raise InputError(f"{xml}: NNCF finds nothing to quantize in the network. Leave the variant out of the study.")
    _name_by_place(quantized)
    with whole(target) as draft:
        ov.save_model(quantized, draft, compress_to_fp16=False)
        network = OpenVinoNetwork(draft, draft.with_suffix(".bin"), spec, threads=1, precision="int8")
        difference = compare(reference.forward(crops[:CROPS]), network.forward(crops[:CROPS]))
        with whole(target.with_suffix(".bin")) as draft_bin:
            draft.with_suffix(".bin").rename(draft_bin)
    return {
        "reference": f"{xml.name} in OpenVINO",
        "calibrated_on_crops": len(crops),
        "compared_on_crops": len(crops[:CROPS]),
        "difference": asdict(difference),
        "sha256": hashes(target, target.with_suffix(".bin")),
        "versions": versions("nncf", "openvino"),
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenVINO compute on one thread: how it rounds depends on their number, which NNCF leaves no way to choose."""
    compile_model = ov.Core.compile_model

    def compile_for_one(core: ov.Core, model: ov.Model, device_name: str, config: dict[str, Any] | None = None) -> Any:
        return compile_model(core, model, device_name, {**(config or {}), "INFERENCE_NUM_THREADS": 1})

    ov.Core.compile_model = compile_for_one
    try:
        yield
    finally:
        ov.Core.compile_model = compile_model


def _name_by_place(model: ov.Model) -> None:
    """Replace the names that OpenVINO made up, which count the operators of the process and so differ between runs."""
    for place, operator in enumerate(model.get_ordered_ops()):
        kind = operator.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operator.get_friendly_name()):
            operator.set_friendly_name(f"{kind}_{place}")
