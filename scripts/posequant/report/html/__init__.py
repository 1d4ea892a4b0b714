"""The report of a study: one HTML file that needs nothing else, on disk or from a network."""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from posequant.base.errors import InputError
from posequant.base.files import require_file
from posequant.base.html import page_body
from posequant.report.html.figures import Figure, attribution_figures, network_figures
from posequant.report.page import ground_tables, ground_words, measured_words
from posequant.report.result import Network, Result, Row
from posequant.report.verdict import Judgement
from posequant.report.words import in_words

_SIGNS = {"within": "✓", "outside": "✕", "undecided": "?"}
_COLUMNS = (
    ("Row", "the runtime and its precision"),
    ("Verdict", "by the study's tolerance"),
    ("AP", "COCO's average precision of keypoints"),
    ("OKS loss", "1 - mean OKS to the poses of FP32 in the same runtime"),
    ("AP loss", "AP of FP32 in the same runtime - AP of the row"),
    ("Size, MB", "the files that the runtime loads"),
    ("Latency, ms", "median of single crops on one thread"),
    ("p95, ms", "95th percentile of the latency"),
    ("Against FP32", "how many times as fast as FP32 in the same runtime"),
    ("Crops/s", "of the bare network, on as many threads as stated below"),
    ("Memory, MB", "the peak that opening it and inferring adds"),
    ("Load, ms", "from the files to the first output"),
)
_LAYER_COLUMNS = (
    ("Layer", "in the network's order"),
    ("Kernel", "of a convolution"),
    ("Computed in", "INT8 or float"),
    ("Work", "share of the multiply-accumulates"),
    ("Own SQNR, dB", "of the layer's own output, alone"),
    ("Output SQNR, dB", "of the network's output with this layer alone in INT8"),
    ("Noise", "share of the noise that all layers cause alone"),
    ("OKS loss", "of the poses with this layer alone in INT8"),
)


@dataclass(frozen=True)
class Page:
    """A page of Markdown that the report takes in.

    Attributes:
        link: to it, as the result names it.
        title: of the link to it.
        path: the file; its pictures lie where it says.
    """

    link: str
    title: str
    path: Path


def pages_of(network: Network, folder: Path) -> list[Page]:
    """Return the pages that a network and its rows name.

    Args:
        network: of a result.
        folder: where the result's links start.
    """
    pages = []
    for row in network.rows:
        pages += [Page(link, f"{kind} of {row.title}", folder / link) for kind, link in _links(row).items() if link]
    return [*pages, Page(network.operators, "Operators of the network", folder / network.operators)]


def render_report(
    result: Result,
    data: str,
    pages: Mapping[str, Sequence[Page]],
    poses: Sequence[Path],
    devices: Sequence[Path] = (),
) -> str:
    """Return the report.

    Args:
        result: of the study.
        data: link to its file.
        pages: of each network, by its name: what a link of the report opens.
        poses: the lists of the pictures of rows, `pictures.json`.
        devices: the pages of devices, each of which becomes a section.

    Raises:
        InputError: a page, or a picture that a page or a list names, is missing.
    """
    rows = [json.loads(path.read_text()) | {"folder": path.parent} for path in poses]
    images: dict[str, str] = {}
    networks = [_network(network, pages.get(network.name, ()), rows) for network in result.networks]
    shown = {
        _id(network.name): {
            row["variant"]: _pose_data(row, network, images) for row in rows if row["model"] == network.name
        }
        for network in result.networks
    }
    said = result.networks[0].measure.said
    figures = [figure for network in networks for figure in _all_figures(network)]
    on_devices = [_device(path) for path in devices]
    own = files("posequant.report.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["said"] = lambda text: type(text)(said(str(text)))
    return environment.from_string(own.joinpath("report.html.j2").read_text()).render(
        title=f"Result of the study {result.study}",
        ground=ground_words(result.ground),
        sections=[
            *_sections(networks),
            *((device["id"], device["name"]) for device in on_devices),
            ("ground-part", "What it rests on"),
        ],
        result=result,
        networks=networks,
        devices=on_devices,
        columns=[tuple(map(said, column)) for column in _COLUMNS],
        layer_columns=[tuple(map(said, column)) for column in _LAYER_COLUMNS],
        ground_tables=page_body(ground_tables(result)),
        settings=yaml.safe_dump(result.settings, sort_keys=False, allow_unicode=True),
        data=data,
        css=_Raw(own.joinpath("report.css").read_text()),
        js=_Raw(own.joinpath("report.js").read_text()),
        plotly=_Raw(files("plotly").joinpath("package_data", "plotly.min.js").read_text()),
        figure_data=_Raw(
            said(_json({figure.id: {"data": figure.data, "layout": figure.layout} for figure in figures}))
        ),
        pose_data=_Raw(_json({"images": images, "rows": shown, "loss": said("OKS loss")})),
    )


def _device(path: Path) -> dict[str, str]:
    """Return the section of a device's page, whose headings are one level deeper in the report."""
    text = require_file(path).read_text()
    name = text.splitlines()[0].removeprefix("# ").partition(",")[0]
    body = page_body(re.sub("^#", "##", text, flags=re.MULTILINE), folder=path.parent)
    return {"id": _id(name), "name": name, "body": body}


def _sections(networks: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """Return where the bar at the top leads: to each network, or to the parts of the only one."""
    if len(networks) > 1:
        yield from ((network["id"], network["title"]) for network in networks)
        return
    (network,) = networks
    parts = {
        "verdicts": "Verdicts",
        "rows-title": "Rows",
        "figures": "Figures",
        "layers": "Layers",
        "poses": "Poses",
        "pages": "Certificates",
    }
    for part, name in parts.items():
        if network.get(part) or part == "rows-title":
            yield f"{network['id']}-{part}", name


class _Raw(str):
    """Text that goes into the page as it is."""

    def __html__(self) -> str:
        return self


def _json(content: Any) -> str:
    """Return JSON that nothing in it can end: `</script>` and `<!--` need a `<`."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _id(*names: str) -> str:
    """Return names as one word that a fragment of an address can be.

    Names of networks, which have no hyphen, stay different: from each other, and from the ids of the template, which
    have one.
    """
    return "-".join("".join(sign if sign.isalnum() or sign in "_." else "-" for sign in name) for name in names)


def _network(network: Network, pages: Sequence[Page], poses: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    key = _id(network.name)
    ids = {page.link: _id("page", page.link.removesuffix(".md")) for page in pages}
    with_poses = [row for row in network.rows if _has_poses(row, network, poses)]
    return {
        "id": key,
        "title": network.title,
        "verdicts": [_card(network, row, ids) for row in network.rows if row.verdict],
        "rows": [_table_row(row) for row in network.rows],
        "costs": measured_words(network),
        "figures": network_figures(network, key),
        "layers": [_layers(row, _id(network.name, row.variant, "layers")) for row in network.rows if row.attribution],
        "poses": with_poses,
        # There is most to see of it.
        "poses_first": max(
            with_poses, key=lambda row: row.verdict.oks.loss or 0.0 if row.verdict else 0.0, default=None
        ),
        "pages": [{"id": ids[page.link], "title": page.title, "body": _page(page, pages, ids)} for page in pages],
    }


def _has_poses(row: Row, network: Network, poses: Iterable[Mapping[str, Any]]) -> bool:
    return any((of["model"], of["variant"]) == (network.name, row.variant) for of in poses)


def _all_figures(network: Mapping[str, Any]) -> Iterable[Figure]:
    yield from network["figures"]
    for layers in network["layers"]:
        yield from layers["figures"]


def _card(network: Network, row: Row, ids: Mapping[str, str]) -> dict[str, Any]:
    words = in_words(network, row)
    assert words is not None
    assert row.verdict is not None
    return {
        "kind": row.verdict.kind,
        "sign": _SIGNS[row.verdict.kind],
        "title": row.title,
        "headline": words.headline,
        "gained": words.gained,
        "losses": words.losses,
        "note": words.note,
        "bar": _bar(row.verdict.oks, _end_of_bars(network)),
        "links": [(ids[link], name) for name, link in _links(row).items() if link is not None and link in ids],
    }


def _links(row: Row) -> dict[str, str | None]:
    return {"Certificate": row.links.certificate, "Recipe": row.links.recipe, "Layers": row.links.attribution}


def _end_of_bars(network: Network) -> float:
    """Return the loss at which the bars of a network's cards end: they share a scale."""
    of_rows = [row.verdict.oks for row in network.rows if row.verdict]
    return 1.08 * max((max(one.limit, *(one.interval or (one.loss or 0.0,))) for one in of_rows), default=1.0)


def _bar(judgement: Judgement, longest: float) -> str:
    """Return a loss, its interval and its limit as a line of SVG; nothing where the loss is not known."""
    if judgement.loss is None:
        return ""
    low, high = judgement.interval or (judgement.loss, judgement.loss)
    width, middle = 300, 13

    def place(value: float) -> float:
        return round(4 + (width - 8) * max(value, 0.0) / longest, 1)

    return (
        f'<svg class="bar" viewBox="0 0 {width} {2 * middle}" preserveAspectRatio="none" aria-hidden="true">'
        f'<line class="axis" x1="4" x2="{width - 4}" y1="{middle}" y2="{middle}"/>'
        f'<line class="interval" x1="{place(low)}" x2="{place(high)}" y1="{middle}" y2="{middle}"/>'
        + "".join(
            f'<line class="{kind}" x1="{place(judgement.loss)}" x2="{place(judgement.loss)}" '
            f'y1="{middle}" y2="{middle}"/>'
            for kind in ("rim", "loss")
        )
        + f'<line class="limit" x1="{place(judgement.limit)}" x2="{place(judgement.limit)}" y1="3" y2="23"/></svg>'
    )


def _table_row(row: Row) -> dict[str, Any]:
    cost, verdict = row.cost, row.verdict
    return {
        "title": row.title,
        "ap": row.ap,
        "oks_loss": verdict.oks.loss if verdict else None,
        "oks_interval": _interval(verdict.oks) if verdict else "",
        "ap_loss": verdict.ap.loss if verdict else None,
        "ap_interval": _interval(verdict.ap) if verdict else "",
        "size_mb": cost.size_bytes / 1e6,
        "latency_ms": cost.latency.median_ms,
        "p95_ms": cost.latency.p95_ms,
        "against_fp32": cost.latency.against_fp32,
        "per_second": cost.throughput.per_second,
        "memory_mb": cost.memory_mb,
        "load_ms": cost.load_ms,
        "verdict": verdict.kind if verdict else "",
    }


def _interval(judgement: Judgement) -> str:
    return "[{:.4f}, {:.4f}]".format(*judgement.interval) if judgement.interval else ""


def _layers(row: Row, key: str) -> dict[str, Any]:
    assert row.attribution is not None
    attribution = row.attribution
    last = attribution["waterfall"][-1]
    return {
        "id": key,
        "title": row.title,
        "words": (
            f"On {attribution['crops']} calibration crops the output has {last['sqnr_db']:.1f} dB of SQNR against FP32."
            if last["sqnr_db"] is not None
            else "The output is that of FP32."
        ),
        "rows": [
            layer | {"computed": f"INT8, {layer['bits']} bits" if layer["bits"] else f"float, {layer['stored']}"}
            for layer in attribution["layers"]
        ],
        "figures": attribution_figures(row, key),
    }


def _page(page: Page, pages: Sequence[Page], ids: Mapping[str, str]) -> str:
    """Return the HTML of a page: links to other pages of the report open them, others than addresses are left out."""
    if not page.path.is_file():
        made = page.path.with_suffix(".html")
        raise InputError(
            f"{page.path}: there is no such file; the report takes it in. Make it again: snakemake -c4 -f {made}"
        )
    others = {other.path.resolve(): ids[other.link] for other in pages}

    def target(link: str) -> str | None:
        known = others.get((page.path.parent / link).resolve())
        return f"#{known}" if known else None

    return page_body(page.path.read_text(), folder=page.path.parent, target=target)


def _pose_data(row: Mapping[str, Any], network: Network, images: dict[str, str]) -> dict[str, Any]:
    """Return what the report shows of a row's people; their images go to `images`, by their names in `people`."""
    folder: Path = row["folder"]
    known = network.row(row["variant"])

    def taken(name: str) -> str:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: there is no such picture; {folder}/pictures.json names it. Make both again.")
        content = path.read_bytes()
        kind = {".jpg": "jpeg", ".png": "png"}[path.suffix]
        image = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        # Rows of one network show many of the same photographs.
        key = next((key for key, other in images.items() if other == image), str(len(images)))
        images[key] = image
        return key

    people = []
    for person in row["people"]:
        heatmaps = person["heatmaps"]
        people.append(
            person
            | {
                "photograph": taken(person["photograph"]),
                "heatmaps": heatmaps
                and heatmaps | {kind: taken(heatmaps[kind]) for kind in ("reference", "candidate", "difference")},
            }
        )
    return {
        "title": known.title if known else row["variant"],
        "skeleton": row["skeleton"],
        "least_score": row["least_score"],
        "people": people,
    }
