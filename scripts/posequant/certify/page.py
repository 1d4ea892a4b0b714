"""The certificate as Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from posequant.base.devices import device_words
from posequant.base.markdown import decibels, figure_or_dash, signed, table
from posequant.base.measures import AP, measure_of
from posequant.evaluate.ground import subset_words

_SIZES = {"APM": "Medium (area 32² to 96²)", "APL": "Large (area from 96²)"}


def render(certificate: Mapping[str, Any]) -> str:
    """Return the page of a certificate, as `certify` makes it."""
    return measure_of(certificate["statistics"]).said("\n\n".join(_paragraphs(certificate)) + "\n")


def stated(comparison: Mapping[str, Any]) -> str:
    """Return a difference and its interval, such as `-0.0061 [-0.0092, -0.0031]`."""
    if comparison["difference"] is None:
        return "-"
    between = f" {_between(comparison['interval'], signed)}" if comparison["interval"] else ""
    return signed(comparison["difference"]) + between


def near(estimate: Mapping[str, Any] | None, form: str = "{:.4f}") -> str:
    """Return a figure and its interval, such as `0.9886 [0.9871, 0.9900]`, by a format for each number."""
    if estimate is None:
        return "-"
    between = f" {_between(estimate['interval'], form.format)}" if estimate["interval"] else ""
    return form.format(estimate["value"]) + between


def kept(share: Mapping[str, Any] | None) -> str:
    """Return the share of FP32 that is kept and its interval, such as `98.81% [98.20%, 99.39%]`."""
    return near(share, "{:.2%}")


def verdicts(share: Mapping[str, Any] | None) -> dict[str, str]:
    """Return for each target, such as `99%`, whether it is met."""
    if share is None:
        return {}
    return {f"{target['target'] * 100:g}%": target["verdict"] for target in share["targets"]}


def _paragraphs(certificate: Mapping[str, Any]) -> Iterable[str]:
    statistics, share, bootstrap = certificate["statistics"], certificate["share_of_fp32"], certificate["bootstrap"]
    interval, precision = f"{100 * bootstrap['confidence']:g}% interval", certificate["precision"].upper()

    def compared(comparison: Mapping[str, Any]) -> dict[str, str]:
        return {
            "FP32": figure_or_dash(comparison["reference"]),
            precision: figure_or_dash(comparison["candidate"]),
            "Difference": signed(comparison["difference"]) if comparison["difference"] is not None else "-",
            interval: _between(comparison["interval"], signed) if comparison["interval"] else "-",
        }

    score = statistics[measure_of(statistics).score]
    yield f"# Certificate of {certificate['variant']}, {certificate['model']}"
    yield (
        f"AP {figure_or_dash(score['candidate'])} in {precision} and "
        f"{figure_or_dash(score['reference'])} in FP32 ({certificate['reference']}): "
        f"**{stated(score)}**. Kept of FP32: **{kept(share)}**. "
        f"In brackets, the {interval}."
    )
    if share is not None:
        yield table(
            {"At least": f"{target['target'] * 100:g}% of FP32", "Verdict": _verdict(target, certificate["images"])}
            for target in share["targets"]
        )
    yield (
        f"The intervals are of a paired bootstrap: {bootstrap['resamples']} draws of all {certificate['images']} "
        f"images, the same for both networks (seed {bootstrap['seed']}). A target is met where the whole interval "
        "reaches it, not met where none of it does, and undecided where it holds the target. The targets are those of "
        "MLPerf Inference."
    )
    yield from _left_out(certificate)
    yield "## Statistics"
    if measure_of(statistics) == AP:
        yield table({"": name, **compared(statistics[name])} for name in ("AP", "AP50", "AP75", "AR", "APM", "APL"))
        yield "## By strictness and size"
        yield table(
            [{"AP of": f"OKS 0.{name[2:]}", **compared(statistics[name])} for name in statistics if name[2:].isdigit()]
            + [{"AP of": title, **compared(statistics[name])} for name, title in _SIZES.items()]
        )
    else:
        yield table({"": name, **compared(statistics[name])} for name in statistics)
        yield "EPE is in pixels, NME in the dataset's own unit (docs/keypoints.md). Of these two less is better."
    yield "## By joint"
    yield table(
        {"Joint": joint["name"], "Labelled": str(joint["labelled"]), **compared(joint["similarity"])}
        for joint in certificate["joints"]
    )
    yield (
        "What a joint contributes to OKS, from 0 to 1, as a mean over the people who have it annotated. With detected "
        "boxes a person's pose is that of the box that overlaps the annotated one most, by half at least."
    )
    yield "## Without labels"
    yield from _without_labels(certificate["without_labels"], precision, interval)
    outputs = certificate["outputs"]
    yield (
        f"SQNR (signal-to-quantization-noise ratio) of the network's outputs: **{decibels(outputs['sqnr_db'])}** "
        f"against FP32 on {outputs['crops']} calibration crops; the greatest difference is {outputs['max_abs']:.3g}."
    )
    yield "## Arithmetic"
    if device := certificate.get("device"):
        yield f"Computed by Vulkan on {device_words(device)}."
    if "as_fp32" in certificate:
        yield from _float(certificate, precision)
    elif certificate["overflow"] is None:
        yield from _operators(certificate)
    else:
        yield from _layers(certificate)
        yield "## Overflow"
        yield from _overflow(certificate["overflow"], vulkan="device" in certificate)
    yield "## Ground"
    yield _ground(certificate)
    yield ", ".join(f"{name} {number}" for name, number in sorted(certificate["versions"].items())) + "."


def _verdict(target: Mapping[str, Any], images: int) -> str:
    if target["verdict"] != "undecided":
        return str(target["verdict"])
    needed = target["images_to_decide"]
    return f"undecided with {images} images" + (f"; about {needed} would decide" if needed else "")


def _left_out(certificate: Mapping[str, Any]) -> Iterable[str]:
    """Say of which figures some draws had nobody to measure."""
    figures = {name: comparison["left_out"] for name, comparison in certificate["statistics"].items()}
    figures |= {joint["name"]: joint["similarity"]["left_out"] for joint in certificate["joints"]}
    if share := certificate["share_of_fp32"]:
        figures["the share kept"] = share["left_out"]
    if oks := certificate["without_labels"]["oks"]:
        figures["OKS to FP32"] = oks["left_out"]
    draws = certificate["bootstrap"]["resamples"]
    if said := [f"{name} {count}" for name, count in figures.items() if 0 < count < draws]:
        yield (
            f"Some of the {draws} draws have nobody to measure a figure on, and its interval is that of the others. "
            f"Left out of: {', '.join(said)}."
        )


def _without_labels(cost: Mapping[str, Any], precision: str, interval: str) -> Iterable[str]:
    if cost["oks"] is None:
        yield "FP32 is sure of no keypoint."
        return
    yield (
        f"OKS of the {precision} keypoints with those of FP32 in the place of the truth: **{near(cost['oks'])}** as a "
        f"mean over {cost['people']} people. {cost['keypoints']} keypoints count, those with a score above 0.2 in "
        "FP32; a person's area is 0.53 times that of the box."
    )
    yield table(
        {
            "No farther from FP32's than": f"{limit} px",
            "Share of the keypoints": f"{share['value']:.2%}",
            interval: _between(share["interval"], "{:.2%}".format) if share["interval"] else "-",
        }
        for limit, share in cost["within"].items()
    )
    yield table(
        [
            {"Displacement": title, **{key: form(values[key]) for key in ("mean", "median", "p95")}}
            for title, values, form in (
                ("in pixels", cost["pixels"], "{:.2f}".format),
                ("by the root of the area", cost["relative"], "{:.4f}".format),
            )
        ]
    )
    yield table(
        _moved({"By size": part["name"], "People": str(part["people"])}, part) for part in _present(cost, "by_size")
    )
    yield table(_moved({"By joint": part["name"].replace("_", " ")}, part) for part in _present(cost, "by_joint"))
    yield (
        "Small, medium and large: below 32², below 96² and from 96² square pixels. OKS of a joint is its mean part in "
        "that of the people."
    )


def _present(cost: Mapping[str, Any], parts: str) -> list[Mapping[str, Any]]:
    """Return the joints or sizes of whom somebody counts."""
    return [part for part in cost[parts] if part["people"]]


def _moved(first: dict[str, str], part: Mapping[str, Any]) -> dict[str, str]:
    shares = {f"Within {limit} px": f"{share['value']:.1%}" for limit, share in part["within"].items()}
    return first | {"Keypoints": str(part["keypoints"]), "OKS to FP32": near(part["oks"])} | shares


def _float(certificate: Mapping[str, Any], precision: str) -> Iterable[str]:
    layers, run = certificate["layers"], certificate["as_fp32"]
    where = "this device" if "device" in certificate else "this processor"
    stored = sorted({layer["stored"] for layer in layers})
    yield (
        f"All of the {certificate['work']['macs'] / 1e6:.1f} million multiply-accumulates of a crop are float. The "
        f".bin holds the weights as {' and '.join(stored)}."
    )
    if run["equal"]:
        yield (
            f"The same files give the same bits in {precision} and in FP32 on {run['crops']} calibration crops: on "
            f"{where} ncnn computes them in float32, and only the stored weights differ from those of FP32. "
            "Another processor may compute in reduced precision, and what is certified here need not hold on it."
        )
    else:
        yield (
            f"On {run['crops']} calibration crops the same files give outputs up to {run['largest_difference']:.3g} "
            f"apart in {precision} and in FP32: on {where} ncnn holds values in reduced precision. How it sums "
            "them depends on the processor."
        )
    yield "There are no integers to overflow."


def _operators(certificate: Mapping[str, Any]) -> Iterable[str]:
    work, operators = certificate["work"], certificate["layers"]
    yield (
        f"{sum(operator['int8'] for operator in operators)} of the {len(operators)} operators with weights are INT8, "
        f"with {work['int8']:.1%} of the {work['macs'] / 1e6:.1f} million multiply-accumulates of a crop; "
        f"{work['float']:.1%} are float. This is what the runtime reports of how it executes the network on this "
        "processor. On x86 processors without VNNI instructions its sums may saturate; what is certified here need not "
        "hold on them."
    )
    yield table(
        {
            "Operator": operator["name"],
            "Type": operator["kernel"],
            "Computed in": "INT8" if operator["int8"] else "FP32",
            "MACs": f"{operator['macs'] / work['macs']:.2%}",
        }
        for operator in operators
    )


def _layers(certificate: Mapping[str, Any]) -> Iterable[str]:
    work = certificate["work"]
    bits = ", ".join(f"{share:.1%} with {width}-bit weights" for width, share in work["bits"].items())
    yield (
        f"{work['int8']:.1%} of the {work['macs'] / 1e6:.1f} million multiply-accumulates of a crop are INT8 ({bits}); "
        f"{work['float']:.1%} are float."
    )
    yield table(
        {
            "Layer": layer["name"],
            "Kernel": layer["kernel"],
            "Stored": layer["stored"],
            "Bits": str(layer["bits"] or "-"),
            "Weights": "{} to {}".format(*layer["weights"]) if layer["weights"] else "-",
            "Levels": str(layer["levels"] or "-"),
            "Activation scale": f"{layer['activation_scale']:.4g}" if layer["activation_scale"] else "-",
            "MACs": f"{layer['macs'] / work['macs']:.2%}",
            "Largest int32": _largest(layer["bounds"], "int32"),
            "Largest int16": _largest(layer["bounds"], "int16"),
        }
        for layer in certificate["layers"]
    )
    yield (
        "Largest: how much of the integer type the largest sum can fill, over all inputs and output channels, in any "
        "way in which ncnn may compute the layer."
    )


def _largest(bounds: Iterable[Mapping[str, Any]], kind: str) -> str:
    shares = [bound["worst"] / bound["limit"] for bound in bounds if kind in bound["quantity"]]
    return f"{max(shares):.1%}" if shares else "-"


def _overflow(overflow: Mapping[str, Any], *, vulkan: bool) -> Iterable[str]:
    run, can = overflow["winograd_on_and_off"], overflow["can_overflow"]
    agreement = "the same bits" if run["equal"] else f"outputs up to {run['largest_difference']:.3g} apart"
    yield f"With INT8 Winograd on and off the network gives {agreement} on {run['crops']} calibration crops."
    if vulkan and not run["equal"]:
        yield (
            "On Vulkan INT8 Winograd multiplies a layer's integer sums by a scale that holds its own factor. The "
            "product may differ in the last bit, and the next layer then rounds it to the neighbouring integer."
        )
    if can:
        yield f"**Some input can make these layers overflow: {', '.join(can)}.** Quantize the model again."
    else:
        yield (
            "No input can make an integer overflow, with INT8 Winograd or without: the bounds above hold for all "
            "inputs."
        )
    if safe := overflow["winograd_safe"]:
        yield f"Kept from INT8 Winograd by their line in the .param (31=64): {', '.join(safe)}."


def _ground(certificate: Mapping[str, Any]) -> str:
    protocol, calibration, hashes = certificate["protocol"], certificate["calibration"], certificate["sha256"]
    precision = certificate["precision"].upper()
    lines = {
        "Boxes": protocol["boxes"],
        "Flip test": "yes" if protocol["flip_test"] else "no",
        **({"Subset": subset} if (subset := subset_words(protocol)) else {}),
        "Images, instances": f"{certificate['images']}, {certificate['instances']}",
        (
            "Calibrated on" if certificate["precision"] == "int8" else "Crops to compare outputs"
        ): f"{calibration['people']} people in {calibration['images']} images, seed {calibration['seed']}",
        "Images shared by calibration and evaluation": f"{calibration['evaluation']['overlap']}, by id and file name",
        "Calibration set": f"sha256 `{calibration['sha256']}`",
        "Annotations": f"sha256 `{hashes['annotations']}`",
        **{f"{precision} {name}": f"sha256 `{digest}`" for name, digest in hashes["artifact"].items()},
        f"{precision} predictions": f"sha256 `{hashes['predictions']}`",
        **{f"FP32 {name}": f"sha256 `{digest}`" for name, digest in hashes["reference_artifact"].items()},
        "FP32 predictions": f"sha256 `{hashes['reference_predictions']}`",
    }
    return table({"Ground": title, " ": text} for title, text in lines.items())


def _between(interval: Any, form: Any) -> str:
    return "[{}, {}]".format(*map(form, interval))
