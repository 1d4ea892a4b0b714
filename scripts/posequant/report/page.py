"""The result of a study as Markdown: a summary of each model, a table of each variant, and what they rest on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posequant.base.markdown import decibels, signed, table
from posequant.base.model_spec import ModelSpec
from posequant.certify.page import kept, near, stated, verdicts
from posequant.evaluate.ground import require_common_ground
from posequant.report.published import comparisons, not_comparable

SHOWN = ("AP", "AP50", "AP75", "AR", "AR50")
BACKEND_TITLES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "ncnn": "ncnn"}


@dataclass(frozen=True)
class Certificate:
    """What certification wrote of a variant in reduced precision.

    Attributes:
        content: the certificate.
        link: to its page, relative to this one.
        recipe: link to the page of the recipe that made the variant, if one did.
    """

    content: Mapping[str, Any]
    link: str
    recipe: str | None = None


@dataclass(frozen=True)
class Row:
    """One variant of one model.

    Attributes:
        metrics: what evaluation wrote: what was predicted by what from what, counts, statistics.
        cost: what the latency measurement wrote.
        log: link to the log of the evaluation, relative to the page.
        certificate: of a variant in reduced precision, where there is one.
    """

    metrics: Mapping[str, Any]
    cost: Mapping[str, Any]
    log: str
    certificate: Certificate | None = None

    @property
    def title(self) -> str:
        """The variant in words, such as `ncnn INT8 (kl)`."""
        return variant_title(self.metrics["variant"], self.metrics["backend"], self.metrics["precision"])


def variant_title(variant: str, backend: str, precision: str) -> str:
    """Return the variant's name in words: backend and precision, then what else its name says.

    `ncnn-int8` becomes `ncnn INT8`, `ncnn-int8-aciq` becomes `ncnn INT8 aciq`.
    """
    rest = [part for part in variant.split("-") if part not in (backend, precision)]
    return " ".join([BACKEND_TITLES[backend], precision.upper(), *rest])


@dataclass(frozen=True)
class Model:
    """One network of the study.

    Attributes:
        spec: its description.
        architecture: its name in the Arch column.
        operators: link to the table of its operators, relative to the page.
        rows: its rows, in the order in which they are shown.
        published: figures of it from elsewhere, as in the configuration.
    """

    spec: ModelSpec
    architecture: str
    operators: str
    rows: Sequence[Row]
    published: Sequence[Mapping[str, Any]] = ()

    @property
    def input_size(self) -> str:
        """Width and height as the tables show them."""
        return "{}x{}".format(*self.spec.input_size)


def render(models: Sequence[Model], calibration: Mapping[str, Any], figure: str) -> str:
    """Return the page.

    Args:
        models: the networks of the study.
        calibration: the calibration set, as it was written.
        figure: link to the picture of the result, relative to the page.

    Raises:
        InputError: rows of one model were made under different protocols or on different people.
    """
    for model in models:
        _require_common_ground(model)
    return (
        "\n\n".join(
            [
                "# Results",
                *_summary(models),
                f"![AP, speed and size of every variant]({figure})",
                "# Backends",
                *_backend_sections(models),
                *_published(models),
                *_certificates(models),
                "# Protocol",
                *_protocol(models[0].rows[0].metrics),
                "# Calibration set",
                *_calibration(calibration),
                "# Versions and artifacts",
                *_provenance(models),
            ]
        )
        + "\n"
    )


def _require_common_ground(model: Model) -> None:
    first, *others = [row.metrics for row in model.rows]
    for other in others:
        require_common_ground(first, other, (f"{model.spec.name}: {first['variant']}", other["variant"]))


def _summary(models: Sequence[Model]) -> Iterable[str]:
    for model in models:
        reference = _reference(model)
        yield f"## {model.architecture}, {model.input_size}"
        certified = any(row.certificate for row in model.rows)
        yield table(_summary_line(row, reference) | (_certified_cell(row) if certified else {}) for row in model.rows)
        cost = model.rows[0].cost
        yield (
            f"AP as a difference to {reference.title}, and the share of its AP that is kept. "
            f"Latency: median of single crops on one thread ({cost['cpu']}), each timed in turn with ONNX Runtime FP32 "
            "on the same crop; speed is the median ratio to it. Size: the files that the runtime loads. "
            f"What the network is made of, in PyTorch, ONNX and ncnn: [operators]({model.operators})."
        )
        if certified:
            yield (
                "AP against FP32: the difference to FP32 in the same runtime, in brackets its confidence interval "
                "([Certificates](#certificates))."
            )
            yield "How near the poses of each row are to those of FP32 in the same runtime, without labels:"
            yield table(_nearness_line(row, row.certificate) for row in model.rows if row.certificate)
            yield (
                "OKS to FP32 takes the FP32 poses for the truth. Within: the share of the keypoints that are no "
                "farther from FP32's, in pixels of the image. Each pose is compared with its own, so the intervals in "
                "brackets are narrow: they tell rows apart that AP cannot."
            )
        if departing := _rows_outside_tolerance(model):
            yield f"**Not as published: {', '.join(departing)}.** See [Published figures](#published-figures)."


def _reference(model: Model) -> Row:
    by_backend = {row.metrics["backend"]: row for row in reversed(model.rows)}
    return by_backend.get("pytorch") or by_backend.get("onnxruntime") or model.rows[0]


def _summary_line(row: Row, reference: Row) -> dict[str, str]:
    precision, average_precision = row.metrics["precision"].upper(), row.metrics["statistics"]["AP"]
    full = reference.metrics["statistics"]["AP"]
    return {
        "Backend": row.title.replace(f" {precision}", "", 1),
        "Precision": precision,
        "AP": f"{average_precision:.4f}",
        "Difference": "reference" if row is reference else signed(average_precision - full),
        "Kept": f"{average_precision / full:.2%}" if full > 0 else "-",
        "Size": f"{row.cost['size_bytes'] / 1e6:.2f} MB",
        "Latency": f"{row.cost['latency']['median_ms']:.2f} ms",
        "Speed": f"{row.cost['latency']['speedup']:.2f}x",
    }


def _nearness_line(row: Row, certificate: Certificate) -> dict[str, str]:
    cost = certificate.content["without_labels"]
    within = cost["within"] or {}
    return {
        "Backend": row.title,
        "OKS to FP32": near(cost["oks"]),
        **{f"Within {limit} px": near(share, "{:.1%}") for limit, share in within.items()},
    }


def _certified_cell(row: Row) -> dict[str, str]:
    if row.certificate is None:
        return {"AP against FP32": ""}
    difference = stated(row.certificate.content["statistics"]["AP"])
    links = [f"[certificate]({row.certificate.link})"]
    links += [f"[recipe]({row.certificate.recipe})"] if row.certificate.recipe else []
    return {"AP against FP32": f"{difference} ({', '.join(links)})"}


def _backend_sections(models: Sequence[Model]) -> Iterable[str]:
    titles = dict.fromkeys(row.title for model in models for row in model.rows)
    for title in titles:
        yield f"## {title}"
        yield table(
            {
                "Arch": model.architecture,
                "Input Size": model.input_size,
                **{name: f"{row.metrics['statistics'][name]:.4f}" for name in SHOWN},
                "log": f"[log]({row.log})",
            }
            for model in models
            for row in model.rows
            if row.title == title
        )


def _rows_outside_tolerance(model: Model) -> list[str]:
    return [
        row.title for row in model.rows if any(found.outside for found in comparisons(row.metrics, model.published))
    ]


def _published(models: Sequence[Model]) -> Iterable[str]:
    if any(model.published for model in models):
        yield "# Published figures"
    for model in models:
        if lines := list(_comparison_lines(model)):
            yield f"## {model.architecture}, {model.input_size}: published and measured"
            yield table(lines)
        others = not_comparable(model.rows[0].metrics["protocol"], model.published)
        if others:
            yield f"Figures of {model.architecture}, {model.input_size}, under another protocol; not compared:"
            yield table(
                {
                    "Variants": ", ".join(entry["variants"]),
                    "Boxes": entry["protocol"]["boxes"],
                    "Flip test": _yes_no(entry["protocol"]["flip_test"]),
                    "Published": ", ".join(f"{name} {figure:.4f}" for name, figure in entry["statistics"].items()),
                    "Source": entry["source"],
                }
                for entry in others
            )


def _comparison_lines(model: Model) -> Iterable[dict[str, str]]:
    """Three lines of the table for each row that has published figures."""
    names = list(dict.fromkeys(name for entry in model.published for name in entry["statistics"]))
    for row in model.rows:
        for found in comparisons(row.metrics, model.published):
            verdict = (
                f"**outside {found.tolerance:g}: {', '.join(found.outside)}**"
                if found.outside
                else f"within {found.tolerance:g}"
            )
            figures: list[tuple[str, str, Mapping[str, float | None], str, str]] = [
                (row.title, "measured", found.measured, ".4f", ""),
                ("", "published", found.published, ".4f", found.source),
                ("", "difference", found.differences, "+.4f", verdict),
            ]
            for title, kind, values, form, remark in figures:
                cells = {name: "-" if (value := values.get(name)) is None else f"{value:{form}}" for name in names}
                yield {"Backend": title, "Figures": kind, **cells, "Remark": remark}


def _certificates(models: Sequence[Model]) -> Iterable[str]:
    rows = [(model, row, row.certificate) for model in models for row in model.rows if row.certificate]
    if not rows:
        return
    yield "# Certificates"
    yield table(
        {
            "Arch": model.architecture,
            "Backend": f"[{row.title}]({certificate.link})",
            "AP against FP32": stated(certificate.content["statistics"]["AP"]),
            "Kept of FP32": kept(certificate.content["share_of_fp32"]),
            **{f"At least {goal}": said for goal, said in verdicts(certificate.content["share_of_fp32"]).items()},
            "SQNR": decibels(certificate.content["outputs"]["sqnr_db"]),
            "Work in INT8": f"{certificate.content['work']['int8']:.1%}",
            "Can overflow": _can_overflow(certificate.content),
        }
        for model, row, certificate in rows
    )
    bootstrap = rows[0][2].content["bootstrap"]
    yield (
        f"In brackets, {100 * bootstrap['confidence']:g}% intervals of a paired bootstrap over the images "
        f"({bootstrap['resamples']} draws, seed {bootstrap['seed']}). A target is undecided where the interval of the "
        "share holds it. SQNR: of the outputs, against FP32, on calibration crops."
    )


def _can_overflow(certificate: Mapping[str, Any]) -> str:
    """Return the layers that some input can make overflow; a dash where it is not known."""
    overflow = certificate["overflow"]
    if overflow is None:
        return "-" if certificate["precision"] == "int8" else "no layer"
    return ", ".join(overflow["can_overflow"]) or "no layer"


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _protocol(metrics: Mapping[str, Any]) -> Iterable[str]:
    protocol = metrics["protocol"]
    yield table(
        [
            {"Protocol": "Boxes", "": protocol["boxes"]},
            {"Protocol": "Flip test", "": _yes_no(protocol["flip_test"])},
            {"Protocol": "Images", "": str(metrics["images"])},
            {"Protocol": "Instances", "": str(metrics["instances"])},
            {"Protocol": "Metric", "": "COCO keypoints (OKS), pycocotools; scoring, rescoring and NMS as mmpose's"},
            {"Protocol": "Annotations", "": f"sha256 `{metrics['sha256']['annotations']}`"},
        ]
    )


def _calibration(calibration: Mapping[str, Any]) -> Iterable[str]:
    yield table(
        [
            {"Calibration": "People", "": str(len(calibration["people"]))},
            {"Calibration": "Images", "": str(calibration["images"])},
            {"Calibration": "Seed", "": str(calibration["seed"])},
            {"Calibration": "Shared with the evaluation images", "": str(calibration["evaluation"]["overlap"])},
            {"Calibration": "Annotations", "": f"sha256 `{calibration['annotations']['sha256']}`"},
        ]
    )


def _provenance(models: Sequence[Model]) -> Iterable[str]:
    versions: dict[str, str] = {}
    for model in models:
        for row in model.rows:
            versions |= row.metrics["versions"]
    yield ", ".join(f"{name} {versions[name]}" for name in sorted(versions)) + "."
    yield table(
        {"Arch": model.architecture, "Backend": row.title, "File": name, "sha256": f"`{digest}`"}
        for model in models
        for row in model.rows
        for name, digest in row.metrics["sha256"]["artifact"].items()
    )
