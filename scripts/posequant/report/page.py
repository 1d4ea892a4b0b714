"""The page of a study as Markdown: verdicts and a summary of each network, a table of each row, what they rest on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from posequant.base.devices import SOFTWARE, device_words
from posequant.base.markdown import decibels, figure_or_dash, signed, table, unbroken_table
from posequant.base.measures import AP, STATISTICS
from posequant.certify.page import near, stated, verdicts
from posequant.evaluate.ground import subset_words
from posequant.report.overview import overview
from posequant.report.published import comparisons, not_comparable
from posequant.report.result import Ground, Network, Protocol, Result, Row
from posequant.report.words import in_words

SHOWN = ("AP", "AP50", "AP75", "AR", "AR50")
# Of a SHA-256, what tells files apart; the whole is in the result's file.
_HASH_SHOWN = 12


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        link: to the file, relative to the page.
        title: what it shows, in a few words.
        caption: how to read it.
    """

    link: str
    title: str
    caption: str


def render(result: Result, data: str, report: str, pictures: Sequence[Picture] = ()) -> str:
    """Return the page.

    Args:
        result: of the study.
        data: link to the file of the result, relative to the page.
        report: link to the HTML report, relative to the page.
        pictures: shown after the summaries.
    """
    said = result.networks[0].measure.said
    return (
        "\n\n".join(
            [
                f"# Result of the study {result.study}",
                *map(said, _opening(result)),
                f"[{report}]({report}) shows the same with poses, and with figures that tell their numbers.",
                *map(said, overview(result)),
                *map(said, _summaries(result)),
                *map(said, _shown(pictures)),
                "# Backends",
                *_backend_sections(result.networks),
                *_published(result),
                *map(said, _certificates(result.networks)),
                "# What it rests on",
                ground_tables(result),
                f"The hashes are shortened; [{data}]({data}) has them whole, and all figures of this page.",
                "# How to reproduce it",
                *_reproduction(result),
            ]
        )
        + "\n"
    )


def ground_words(ground: Ground) -> str:
    """Return on whom and how a result was measured, one sentence."""
    boxes = {"ground-truth": "boxes of the annotations", "detections": "boxes of a detector"}[ground.protocol.boxes]
    flip = "with" if ground.protocol.flip_test else "without"
    subset = subset_words(ground.protocol.model_dump())
    return f"{ground.images:,} images, {ground.instances:,} people, {boxes}, {flip} flip test." + (
        f" A subset: {subset}." if subset else ""
    )


def ground_tables(result: Result) -> str:
    """Return what a result rests on, in Markdown: protocol, calibration set, versions, hashes of all artifacts."""
    parts = [
        "### Protocol",
        *_protocol(result),
        "### Calibration set",
        *_calibration(result.calibration),
        "### Versions and artifacts",
        *_provenance(result),
    ]
    return result.networks[0].measure.said("\n\n".join(parts))


def measured_words(network: Network) -> str:
    """Return how the costs of a network's rows were measured."""
    cpu, threads = network.measurement.cpu, network.rows[0].cost.throughput.threads
    features = f" ({', '.join(cpu.features)})" if cpu.features else ""
    return (
        f"Measured on {cpu.name}{features}, in one run. 95th percentile: of the latency. Against FP32: how many times "
        f"as fast as FP32 in the same runtime. Throughput: crops per second of the bare network on {threads} "
        f"{'thread' if threads == 1 else 'threads'}. Memory: the peak that opening the network and inferring single "
        "crops adds. Load: from the files to the output of the first crop."
        + "".join(f" {said}" for said in _devices(network))
    )


def _devices(network: Network) -> Iterable[str]:
    """Yield a sentence for each device on which rows ran, other than the CPU."""
    timed: dict[str, list[str]] = {}
    for row in network.rows:
        if row.cost.device:
            timed.setdefault(device_words(row.cost.device.model_dump()), []).append(row.title)
        if row.device and row.cost.device and row.device.name != row.cost.device.name:
            yield f"The people of {row.title} were predicted on another device, {row.device.name}."
    for words, titles in timed.items():
        yield f"{', '.join(titles)}: on {words}, one crop at a time."
    if any(row.cost.device and row.cost.device.kind == SOFTWARE for row in network.rows):
        yield "Rows with (no GPU) say what is computed; their times are not those of a GPU."


def _opening(result: Result) -> Iterable[str]:
    yield ground_words(result.ground)
    if any(row.verdict for network in result.networks for row in network.rows):
        yield (
            "Every row in reduced precision is compared with FP32 in the same runtime. The tolerance of this study: "
            f"the loss of OKS to FP32 is at most {result.tolerance.oks_loss:g}, by the upper end of its interval; the "
            f"loss of AP is at most {result.tolerance.ap_loss:g}, where the people suffice to tell. Brackets hold "
            "confidence intervals."
        )


def _summaries(result: Result) -> Iterable[str]:
    for network in result.networks:
        reference, cost = network.reference, network.measurement
        yield f"## {network.title}"
        yield from _verdicts(network)
        yield unbroken_table(_summary_line(row, reference) for row in network.rows)
        yield (
            f"AP: the difference to {reference.title}. Latency: median of single crops on one thread of "
            f"{cost.cpu.name}; the rows were timed in turn, in one run. Speed: against {cost.reference}. Size: the "
            f"files that the runtime loads. [Operators of the network]({network.operators})."
        )
        if certified := [row for row in network.rows if row.certificate]:
            yield "### Against FP32 in the same runtime"
            yield unbroken_table(_against_fp32(row) for row in certified)
            yield unbroken_table(_nearness_line(row) for row in certified)
            if moved := [row for row in certified if _certificate(row)["without_labels"]["within"]]:
                yield unbroken_table(_within_line(row) for row in moved)
            yield (
                "OKS to FP32 takes the FP32 poses for the truth and needs no labels. SQNR: of the outputs, against "
                "FP32, on calibration crops. Within: the share of the "
                "keypoints that are no farther from FP32's, in pixels of the image. Each pose is compared with its "
                "own, so these intervals are narrow: they tell rows apart that AP cannot."
            )
        yield "### Costs"
        yield unbroken_table(_cost_line(row) for row in network.rows)
        yield measured_words(network)
        if departing := _rows_outside_tolerance(network, result.ground.protocol):
            yield f"**Not as published: {', '.join(departing)}.** See [Published figures](#published-figures)."


def _verdicts(network: Network) -> Iterable[str]:
    lines = []
    for row in network.rows:
        if said := in_words(network, row):
            lines.append(f"- **{row.title}: {said.headline}.** {said.text}")
    if lines:
        yield "\n".join(lines)


def _summary_line(row: Row, reference: Row) -> dict[str, str]:
    difference = None if row.ap is None or reference.ap is None else row.ap - reference.ap
    return {
        "Backend": row.title,
        "AP": figure_or_dash(row.ap),
        "Difference": "reference" if row is reference else figure_or_dash(difference, signed),
        "Size": f"{row.cost.size_bytes / 1e6:.2f} MB",
        "Latency": f"{row.cost.latency.median_ms:.2f} ms",
        "Speed": f"{row.cost.latency.speedup:.2f}x",
    }


def _against_fp32(row: Row) -> dict[str, str]:
    certificate = _certificate(row)
    links = {
        "certificate": row.links.certificate,
        "recipe": row.links.recipe,
        "layers": row.links.attribution,
        "pictures": row.links.pictures,
    }
    return {
        "Backend": row.title,
        "AP against FP32": stated(certificate["statistics"][row.measure.score]),
        "Kept": near(certificate["share_of_fp32"], "{:.1%}"),
        "More": ", ".join(f"[{name}]({link})" for name, link in links.items() if link),
    }


def _nearness_line(row: Row) -> dict[str, str]:
    sqnr = _certificate(row)["outputs"]["sqnr_db"]
    near_oks = near(_certificate(row)["without_labels"]["oks"])
    return {"Backend": row.title, "OKS to FP32": near_oks, "SQNR": decibels(sqnr)}


def _within_line(row: Row) -> dict[str, str]:
    within = _certificate(row)["without_labels"]["within"]
    return {
        "Backend": row.title,
        **{f"Within {limit} px": near(share, "{:.1%}") for limit, share in within.items()},
    }


def _cost_line(row: Row) -> dict[str, str]:
    cost = row.cost
    return {
        "Backend": row.title,
        "95th percentile": f"{cost.latency.p95_ms:.2f} ms",
        "Against FP32": figure_or_dash(cost.latency.against_fp32, "{:.2f}x".format),
        "Throughput": f"{cost.throughput.per_second:.0f}/s",
        "Memory": f"{cost.memory_mb:.0f} MB",
        "Load": f"{cost.load_ms:.0f} ms",
    }


def _shown(pictures: Sequence[Picture]) -> Iterable[str]:
    if pictures:
        yield "# Figures"
    for picture in pictures:
        yield f"## {picture.title}"
        yield f"![{picture.title}]({picture.link})"
        yield picture.caption


def _certificate(row: Row) -> Mapping[str, Any]:
    assert row.certificate is not None
    return row.certificate


def _backend_sections(networks: Sequence[Network]) -> Iterable[str]:
    titles = dict.fromkeys(row.title for network in networks for row in network.rows)
    for title in titles:
        yield f"## {title}"
        yield table(
            {
                "Arch": network.architecture,
                "Input Size": network.input_size,
                **{name: figure_or_dash(row.statistics[name]) for name in _statistics(row)},
                "log": f"[log]({row.links.log})",
            }
            for network in networks
            for row in network.rows
            if row.title == title
        )


def _statistics(row: Row) -> Sequence[str]:
    """Return which statistics of a row are shown: some of COCO's, and all that only other datasets have."""
    if row.measure != AP:
        return list(row.statistics)
    return [*SHOWN, *(name for name in row.statistics if name not in STATISTICS)]


def _rows_outside_tolerance(network: Network, protocol: Protocol) -> list[str]:
    return [
        row.title
        for row in network.rows
        if any(found.outside for found in comparisons(row, protocol, network.published))
    ]


def _published(result: Result) -> Iterable[str]:
    protocol = result.ground.protocol
    if any(network.published for network in result.networks):
        yield "# Published figures"
    for network in result.networks:
        if lines := list(_comparison_lines(network, protocol)):
            yield f"## {network.title}: published and measured"
            yield table(lines)
        others = not_comparable(protocol, network.published)
        if others:
            yield f"Figures of {network.title}, under another protocol; not compared:"
            yield table(
                {
                    "Variants": ", ".join(entry["variants"]),
                    "Boxes": entry["protocol"]["boxes"],
                    "Flip test": _yes_no(entry["protocol"]["flip_test"]),
                    **({"People": "all"} if protocol.people else {}),
                    "Published": ", ".join(f"{name} {figure:.4f}" for name, figure in entry["statistics"].items()),
                    "Source": entry["source"],
                }
                for entry in others
            )


def _comparison_lines(network: Network, protocol: Protocol) -> Iterable[dict[str, str]]:
    """Three lines of the table for each row that has published figures."""
    names = list(dict.fromkeys(name for entry in network.published for name in entry["statistics"]))
    for row in network.rows:
        for found in comparisons(row, protocol, network.published):
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


def _certificates(networks: Sequence[Network]) -> Iterable[str]:
    rows = [(network, row, row.certificate) for network in networks for row in network.rows if row.certificate]
    if not rows:
        return
    yield "# Certificates"
    several = len(networks) > 1
    yield unbroken_table(
        {
            **({"Network": network.title} if several else {}),
            "Backend": f"[{row.title}]({row.links.certificate})" if row.links.certificate else row.title,
            **{f"Keeps {goal}": said for goal, said in verdicts(certificate["share_of_fp32"]).items()},
            "Work in INT8": f"{certificate['work']['int8']:.1%}",
            "Can overflow": _can_overflow(certificate),
        }
        for network, row, certificate in rows
    )
    bootstrap = rows[0][2]["bootstrap"]
    yield (
        f"All intervals are {100 * bootstrap['confidence']:g}% intervals of a paired bootstrap over the images "
        f"({bootstrap['resamples']} draws, seed {bootstrap['seed']}). Keeps: whether at least so much of FP32's AP is "
        "kept; undecided where its interval holds the target. Work: share of the multiply-accumulates."
    )


def _can_overflow(certificate: Mapping[str, Any]) -> str:
    """Return the layers that some input can make overflow; a dash where it is not known."""
    overflow = certificate["overflow"]
    if overflow is None:
        return "-" if certificate["precision"] == "int8" else "no layer"
    return ", ".join(overflow["can_overflow"]) or "no layer"


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _protocol(result: Result) -> Iterable[str]:
    ground = result.ground
    yield _facts(
        {
            "Boxes": ground.protocol.boxes,
            "Flip test": _yes_no(ground.protocol.flip_test),
            "Images": str(ground.images),
            **({"Subset": subset} if (subset := subset_words(ground.protocol.model_dump())) else {}),
            "Instances": str(ground.instances),
            "Annotations": _hash(ground.annotations_sha256),
            **({"Detections": _hash(ground.detections_sha256)} if ground.detections_sha256 else {}),
        }
    )
    yield "Metric: COCO keypoints (OKS) by pycocotools; scoring, rescoring and NMS as in mmpose."


def _calibration(calibration: Mapping[str, Any]) -> Iterable[str]:
    yield _facts(
        {
            "People": str(calibration["people"]),
            "Images": str(calibration["images"]),
            "Seed": str(calibration["seed"]),
            "Shared with the evaluation images": str(calibration["evaluation"]["overlap"]),
            "Annotations": _hash(calibration["annotations"]["sha256"]),
        }
    )


def _facts(lines: Mapping[str, str]) -> str:
    return unbroken_table({"Key": key, "Value": value} for key, value in lines.items())


def _hash(digest: str) -> str:
    return f"sha256 `{digest[:_HASH_SHOWN]}`"


def _reproduction(result: Result) -> Iterable[str]:
    yield f"With PoseQuant {result.posequant}:"
    yield f"```sh\n{result.command}\n```"
    settings = yaml.safe_dump(result.settings, sort_keys=False, width=1000, allow_unicode=True)
    yield (
        "Where `config.yaml` says something else by now, save what it said, below, as `study.yaml`, and add "
        "`--configfile study.yaml`."
    )
    yield f"<details>\n<summary>study.yaml</summary>\n\n```yaml\n{settings}```\n\n</details>"


def _provenance(result: Result) -> Iterable[str]:
    yield ", ".join(f"{name} {version}" for name, version in result.versions.items()) + "."
    several = len(result.networks) > 1
    yield unbroken_table(
        {
            **({"Network": network.title} if several else {}),
            "Backend": row.title,
            "File": name,
            "sha256": f"`{digest[:_HASH_SHOWN]}`",
        }
        for network in result.networks
        for row in network.rows
        for name, digest in row.sha256.items()
    )
