"""The certificate of emulated ARM cores as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posequant.base.markdown import figure_or_dash, table
from posequant.base.measures import measure_of
from posequant.certify.page import near, stated
from posequant.evaluate.ground import subset_words

# Below it, as a share of the greatest value, two sums of the same float32 numbers differ by their order only.
_ROUNDING = 1e-6


def render(certificate: Mapping[str, Any]) -> str:
    """Return the page of a certificate, as `certify_arm` makes it."""
    return measure_of(certificate["x86_with_fp32"]["statistics"]).said("\n\n".join(_paragraphs(certificate)) + "\n")


def _paragraphs(certificate: Mapping[str, Any]) -> Iterable[str]:
    cores, bootstrap = certificate["cores"], certificate["bootstrap"]
    interval = f"{100 * bootstrap['confidence']:g}% interval"
    yield f"# {certificate['variant']} on ARM, {certificate['model']}"
    yield "\n".join(f"- {_in_short(core)}" for core in cores)
    yield (
        f"In brackets, the {interval}. The same files were run by ncnn's build for aarch64, on cores that qemu "
        "emulates, and by its build for x86. What is computed is what such a core computes. How fast a core is, its "
        "emulation cannot tell."
    )
    yield f"## {certificate['instances']} people"
    yield table(_scores(certificate, interval))
    yield (
        f"The intervals are of a paired bootstrap: {bootstrap['resamples']} draws of all {certificate['images']} "
        f"images, the same for both networks (seed {bootstrap['seed']}). OKS is that of the keypoints with those of "
        "the other network in the place of the truth."
    )
    yield table(_shifts(certificate))
    yield "Distance between the keypoints of two networks, in pixels of the image, where the second is sure of them."
    yield f"## Outputs of {cores[0]['crops']} people"
    yield table(_outputs(core) for core in cores)
    yield (
        "Signal-to-noise ratio of ARM's outputs with those on x86: in INT8; in INT8 where x86 has no channels side by "
        "side in memory (`use_packing_layout` off); in FP32. *With FP32*: INT8 on ARM, and in brackets on x86, with "
        "FP32 on x86. *Winograd*: whether INT8 with Winograd's algorithm gives the bits of INT8 without it there."
    )
    yield "## Layers"
    for alike in _alike(cores):
        yield from _layers(alike)
    yield "## Ground"
    yield _ground(certificate)
    yield ", ".join(f"{name} {number}" for name, number in sorted(certificate["versions"].items())) + "."


def _in_short(core: Mapping[str, Any]) -> str:
    """Return what a reader wants to know of a core, in a sentence."""
    if core["to_x86"]["int8"]["sqnr_db"] is None and not _moved(core):
        return (
            f"**{core['core']}: as on x86.** Its outputs of {core['crops']} people have the bits of x86, and no "
            "keypoint of all people is elsewhere."
        )
    compared = core["with_x86"]
    score = compared["statistics"][measure_of(compared["statistics"]).score]
    unpacked = core["to_x86"]["unpacked"]["sqnr_db"] is None
    bits = f" Its outputs of {core['crops']} people have the bits of x86 without packing." if unpacked else ""
    return (
        f"**{core['core']}**: AP {figure_or_dash(score['candidate'])}, on x86 {figure_or_dash(score['reference'])}: "
        f"**{stated(score)}**. OKS of its keypoints with those on x86: **{near(compared['without_labels']['oks'])}**."
        f"{bits}"
    )


def _moved(core: Mapping[str, Any]) -> bool:
    """Return whether any keypoint is elsewhere than on x86."""
    pixels = core["with_x86"]["without_labels"]["pixels"]
    return pixels is not None and pixels["mean"] > 0


def _scores(certificate: Mapping[str, Any], interval: str) -> Iterable[dict[str, str]]:
    full = certificate["x86_with_fp32"]
    name = measure_of(full["statistics"]).score
    score = full["statistics"][name]
    yield {
        "INT8 on": "x86",
        "Dot product": "",
        "AP": figure_or_dash(score["candidate"]),
        f"With x86, {interval}": "",
        f"With FP32 ({figure_or_dash(score['reference'])})": stated(score),
        "OKS to x86": "",
        "OKS to FP32": near(full["without_labels"]["oks"]),
    }
    for core in certificate["cores"]:
        beside, against = (core[key]["statistics"][name] for key in ("with_x86", "with_fp32"))
        yield {
            "INT8 on": core["core"],
            "Dot product": "yes" if "dotprod" in core["features"] else "no",
            "AP": figure_or_dash(beside["candidate"]),
            f"With x86, {interval}": stated(beside),
            f"With FP32 ({figure_or_dash(score['reference'])})": stated(against),
            "OKS to x86": near(core["with_x86"]["without_labels"]["oks"]),
            "OKS to FP32": near(core["with_fp32"]["without_labels"]["oks"]),
        }


def _shifts(certificate: Mapping[str, Any]) -> Iterable[dict[str, str]]:
    pairs = {"INT8 on x86 and FP32": certificate["x86_with_fp32"]}
    for core in certificate["cores"]:
        pairs[f"INT8 on {core['core']} and on x86"] = core["with_x86"]
        pairs[f"INT8 on {core['core']} and FP32"] = core["with_fp32"]
    for title, compared in pairs.items():
        cost = compared["without_labels"]
        if cost["oks"] is None:
            continue
        yield {
            "Keypoints of": title,
            **{f"Within {limit} px": f"{share['value']:.2%}" for limit, share in cost["within"].items()},
            **{name: f"{cost['pixels'][name]:.3f}" for name in ("mean", "median", "p95")},
        }


def _outputs(core: Mapping[str, Any]) -> dict[str, str]:
    winograd = core["winograd_on_and_off"]
    used = "no such kernel on cores with dot product" if "dotprod" in core["features"] else "the same bits"
    apart = f"up to {winograd['largest_difference']:.3g} apart"
    return {
        "Core": core["core"],
        "INT8": _ratio(core["to_x86"]["int8"]),
        "INT8, x86 unpacked": _ratio(core["to_x86"]["unpacked"]),
        "FP32": _ratio(core["to_x86"]["fp32"]),
        "With FP32": f"{_ratio(core['to_fp32']['arm'])} ({_ratio(core['to_fp32']['x86'])})",
        "Winograd": used if winograd["equal"] else apart,
    }


def _ratio(difference: Mapping[str, Any]) -> str:
    return "the same bits" if difference["sqnr_db"] is None else f"{difference['sqnr_db']:.1f} dB"


def _alike(cores: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the cores in groups that do not differ within the network."""
    groups: list[list[Mapping[str, Any]]] = []
    for core in cores:
        for group in groups:
            if group[0]["layers"] == core["layers"]:
                group.append(core)
                break
        else:
            groups.append([core])
    return groups


def _layers(cores: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    layers, people = cores[0]["layers"], cores[0]["crops_within"]
    rounding = [layer for layer in layers if _rounds_otherwise(layer)]
    changed = [layer for layer in layers if layer in rounding or layer["input"]["largest"]]
    where = f"{' and '.join(core['core'] for core in cores)}, {people} people: "
    if not changed:
        yield f"{where}all {len(layers)} layers in INT8 get and hand on what they do on x86."
        return
    if not rounding:
        yield f"{where}no layer in INT8 rounds otherwise than on x86; what differs comes from layers in float."
    else:
        first = rounding[0]
        yield (
            f"{where}differences begin at **{first['name']}** ({first['kernel']}). Of {len(layers)} layers in INT8, "
            f"{len(rounding)} round otherwise than on x86 where they get the same input; all others only hand on what "
            "they get."
        )
    yield table(
        {
            "Layer": layer["name"],
            "Kernel": layer["kernel"],
            "Input levels that differ": f"{layer['input']['share']:.3%}",
            "By at most": str(layer["input"]["largest"]),
            "Of the same input, output": _own(layer),
        }
        for layer in changed
    )


def _rounds_otherwise(layer: Mapping[str, Any]) -> bool:
    return bool(layer["own"]["largest"] if layer["own"] else layer["own_float"] > _ROUNDING)


def _own(layer: Mapping[str, Any]) -> str:
    own = layer["own"]
    if own:
        return f"{own['share']:.3%}, by {own['largest']} at most" if own["largest"] else "the same bits"
    return f"float, {layer['own_float']:.1e} of its range" if layer["own_float"] else "the same bits"


def _ground(certificate: Mapping[str, Any]) -> str:
    protocol, hashes = certificate["protocol"], certificate["sha256"]
    emulators = {f"{name} {version}" for core in certificate["cores"] for name, version in core["versions"].items()}
    lines = {
        "Boxes": protocol["boxes"],
        "Flip test": "yes" if protocol["flip_test"] else "no",
        **({"Subset": subset} if (subset := subset_words(protocol)) else {}),
        "Images, instances": f"{certificate['images']}, {certificate['instances']}",
        "On ARM": ", ".join(sorted(emulators)),
        "Annotations": f"sha256 `{hashes['annotations']}`",
        **{f"INT8 {name}": f"sha256 `{digest}`" for name, digest in hashes["artifact"].items()},
        "Predictions on x86": f"sha256 `{hashes['predictions']}`",
        "FP32 predictions": f"sha256 `{hashes['reference_predictions']}`",
        **{f"Predictions on {core['core']}": f"sha256 `{core['predictions']}`" for core in certificate["cores"]},
    }
    return table({"Ground": title, " ": text} for title, text in lines.items())
