"""From what evaluation, measurement and certification wrote to the result of a study."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posequant import __version__
from posequant.base.devices import is_software
from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.evaluate.ground import require_common_ground
from posequant.report.result import (
    Cost,
    Ground,
    Links,
    Measurement,
    Network,
    Result,
    Row,
    variant_title,
)
from posequant.report.verdict import judge
from posequant.workflow.settings.report import Tolerance


@dataclass(frozen=True)
class Record:
    """What a step wrote, and where it lies.

    Attributes:
        path: the file, for messages.
        content: what is in it.
    """

    path: Path
    content: Any


@dataclass(frozen=True)
class RowRecords:
    """What there is of a row: its metrics, and of the other steps what was made.

    Attributes:
        metrics: of its evaluation.
        links: where more is said of it, relative to the result.
        certificate: of a row in reduced precision.
        recipe: of a row made by a recipe.
        attribution: of a row that is attributed.
    """

    metrics: Record
    links: Links
    certificate: Record | None = None
    recipe: Record | None = None
    attribution: Record | None = None


@dataclass(frozen=True)
class NetworkRecords:
    """What there is of a network.

    Attributes:
        spec: its description.
        operators: link to the table of its operators, relative to the result.
        latency: the costs of its rows, measured in one run.
        rows: its rows, in the order in which they are shown.
    """

    spec: ModelSpec
    operators: str
    latency: Record
    rows: Sequence[RowRecords]


def collect(
    study: str, settings: Mapping[str, Any], networks: Sequence[NetworkRecords], calibration: Mapping[str, Any]
) -> Result:
    """Return the result of a study.

    Args:
        study: its name.
        settings: what the configuration says of it, defaults filled in.
        networks: what there is of each network.
        calibration: the calibration set, `calibration.json`.

    Raises:
        InputError: rows were made under different protocols or on different people, or two records of a row are of
            different networks.
    """
    of_study = settings["studies"][study]
    tolerance = Tolerance.model_validate(of_study["tolerance"])
    ground = _ground(networks[0])
    for other in networks[1:]:
        _require_same_ground((networks[0].spec.name, ground), (other.spec.name, _ground(other)))
    versions: dict[str, str] = {}
    for network in networks:
        for row in network.rows:
            versions |= row.metrics.content["versions"]
    return Result(
        schema=1,
        posequant=__version__,
        study=study,
        settings=dict(settings),
        tolerance=tolerance,
        ground=ground,
        calibration={key: value for key, value in calibration.items() if key != "people"}
        | {"people": len(calibration["people"])},
        versions=dict(sorted(versions.items())),
        networks=_networks_told_apart([_network(network, settings, study, tolerance) for network in networks]),
    )


def merge(results: Sequence[Result]) -> Result:
    """Return the result of a study from those of its networks, each as `collect` makes it.

    The settings are those of all; a model whose settings are in several of them is the same in each.

    Raises:
        InputError: networks were evaluated under different protocols or on different people.
    """
    first = results[0]
    for other in results[1:]:
        _require_same_ground((first.networks[0].name, first.ground), (other.networks[0].name, other.ground))
    settings = copy.deepcopy(first.settings)
    for other in results[1:]:
        settings["studies"][first.study]["models"] |= other.settings["studies"][first.study]["models"]
    versions = {name: version for one in results for name, version in one.versions.items()}
    return first.model_copy(
        update={
            "settings": settings,
            "versions": dict(sorted(versions.items())),
            "networks": _networks_told_apart([network for one in results for network in one.networks]),
        }
    )


def _require_same_ground(first: tuple[str, Ground], other: tuple[str, Ground]) -> None:
    """Compare the grounds of two networks, each with its name."""
    if first[1] != other[1]:
        raise InputError(
            f"{first[0]} and {other[0]}: evaluated under different protocols or on different people. Delete the "
            "predictions of the older one and run again."
        )


def _ground(records: NetworkRecords) -> Ground:
    """Return what the rows of a network were evaluated on, as the first of them says."""
    first = records.rows[0].metrics.content
    return Ground(
        protocol=first["protocol"],
        images=first["images"],
        instances=first["instances"],
        annotations_sha256=first["sha256"]["annotations"],
        detections_sha256=first["sha256"]["detections"],
    )


def _network(records: NetworkRecords, settings: Mapping[str, Any], study: str, tolerance: Tolerance) -> Network:
    of_network = settings["studies"][study]["models"][records.spec.name]
    spec, measured = records.spec, records.latency.content
    everybody = [row.metrics.content for row in records.rows]
    for other in everybody[1:]:
        names = f"{spec.name}: {everybody[0]['variant']}", other["variant"]
        require_common_ground(everybody[0], other, names)
    reference = _reference(everybody)
    notes = {name: variant.get("note") for name, variant in settings.get("variants", {}).items()}
    return Network(
        name=spec.name,
        architecture=of_network.get("architecture", spec.name),
        spec={key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}
        | {"keypoints": spec.keypoints.listed()},
        operators=records.operators,
        measurement=Measurement(
            cpu=measured["cpu"],
            run=measured["run"],
            rounds=measured["rounds"],
            reference=measured["reference"],
        ),
        rows=_told_apart([_row(row, records.latency, reference, tolerance, notes) for row in records.rows]),
        published=of_network.get("published", []),
    )


def _reference(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the row that AP is compared with: PyTorch, else ONNX Runtime in FP32, else the first."""
    by_backend = {row["backend"]: row["variant"] for row in reversed(rows) if row["precision"] == "fp32"}
    return str(by_backend.get("pytorch") or by_backend.get("onnxruntime") or rows[0]["variant"])


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Return rows of which no two have the same title: where they had, their names in the configuration follow."""
    titles = Counter(row.title for row in rows)
    return [
        row.model_copy(update={"title": f"{row.title} ({row.variant})"}) if titles[row.title] > 1 else row
        for row in rows
    ]


def _networks_told_apart(networks: Sequence[Network]) -> list[Network]:
    """Return networks of which no two have the same title: where they had, their names are in their architectures."""
    titles = Counter(network.title for network in networks)
    return [
        network.model_copy(update={"architecture": f"{network.architecture} ({network.name})"})
        if titles[network.title] > 1
        else network
        for network in networks
    ]


def _row(
    records: RowRecords, latency: Record, reference: str, tolerance: Tolerance, notes: Mapping[str, str | None]
) -> Row:
    metrics, path = records.metrics.content, records.metrics.path
    cost = latency.content["rows"].get(metrics["variant"])
    if cost is None:
        raise InputError(f"{path}: {latency.path} says nothing of this row's latency. Delete it and run again.")
    files = metrics["sha256"]["artifact"]
    certificate = records.certificate
    made = {"latency": cost["sha256"]}
    if certificate:
        made["certificate"] = certificate.content["sha256"]["artifact"]
    if records.attribution:
        made["attribution"] = records.attribution.content["sha256"]["int8"]
    for whose, said in made.items():
        if said != files:
            raise InputError(f"{path}: made with another network than the row's {whose}. Delete both and run again.")
    variant, backend, precision = (metrics[key] for key in ("variant", "backend", "precision"))
    return Row(
        variant=variant,
        # Of every table and figure that shows times: those of a software driver are not a GPU's.
        title=variant_title(variant, backend, precision) + (" (no GPU)" if is_software(cost.get("device")) else ""),
        backend=backend,
        precision=precision,
        reference=variant == reference,
        statistics=metrics["statistics"],
        sha256=files,
        device=metrics.get("device"),
        cost=Cost.model_validate({key: value for key, value in cost.items() if key != "sha256"}),
        links=records.links,
        certificate=certificate.content if certificate else None,
        verdict=judge(certificate.content, tolerance) if certificate else None,
        note=notes.get(variant),
        recipe=records.recipe.content if records.recipe else None,
        attribution=records.attribution.content if records.attribution else None,
    )
