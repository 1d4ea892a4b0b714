"""Published figures of a model beside the measured ones, under the same protocol only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posequant.report.result import Protocol, Row


@dataclass(frozen=True)
class Comparison:
    """What was measured of a row, and what was published of it.

    Attributes:
        measured: the statistics that are published, by name; None where they were not measured, or
            nobody is of the size.
        published: those statistics, as published.
        tolerance: by how much a statistic may differ, either way.
        source: where they are from.
    """

    measured: Mapping[str, float | None]
    published: Mapping[str, float]
    tolerance: float
    source: str

    @property
    def differences(self) -> dict[str, float | None]:
        """Measured - published, by name."""
        return {
            name: None if (value := self.measured[name]) is None else value - figure
            for name, figure in self.published.items()
        }

    @property
    def outside(self) -> list[str]:
        """Names of the statistics that differ by more than the tolerance, or were not measured."""
        # Figures have four digits; a difference of exactly the tolerance must not fail by how floats round.
        return [
            name
            for name, difference in self.differences.items()
            if difference is None or round(abs(difference), 6) > self.tolerance
        ]


def comparisons(row: Row, protocol: Protocol, published: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Return the comparison of a row with every entry of `published` that is of its variant and protocol.

    Args:
        row: what was measured.
        protocol: how.
        published: as the configuration's `published` of the network.
    """
    return [
        Comparison(
            measured={name: row.statistics.get(name) for name in entry["statistics"]},
            published=entry["statistics"],
            tolerance=entry["tolerance"],
            source=entry["source"],
        )
        for entry in published
        if row.variant in entry["variants"] and protocol.model_dump(exclude_none=True) == entry["protocol"]
    ]


def not_comparable(protocol: Protocol, published: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the entries of `published` that are of another protocol than `protocol`."""
    return [entry for entry in published if entry["protocol"] != protocol.model_dump(exclude_none=True)]
