"""A table of the networks that mmpose's model index lists, with what the survey says of each."""

import re
from collections.abc import Iterable, Mapping, Sequence

from posequant.base.markdown import table
from posequant.base.model_index import Figures, IndexedNetwork

# Of a dataset's figures the one to show: the first that there is.
_MAIN = ("AP", "Whole AP", "PCK", "PCK@0.2", "Mean", "Total", "PCKh@0.7", "NME", "NME full", "NME test", "AUC")
_LINE = re.compile(r"^\| `(?P<name>[^`]+)` *\|(?P<cells>.*)\|$", re.MULTILINE)


def listing(networks: Iterable[IndexedNetwork], survey: str, words: Sequence[str] = ()) -> str:
    """Return the table in Markdown.

    Args:
        networks: of the index.
        survey: the page that the survey wrote (`survey.markdown`).
        words: of which a line has to hold all, in small letters or capitals; by default all lines are shown.
    """
    states = surveyed(survey)
    lines = [_line(network, states) for network in networks]
    found = [line for line in lines if all(word.lower() in " ".join(line.values()).lower() for word in words)]
    return table(found) if found else f"No network has all of: {', '.join(words)}."


def surveyed(page: str) -> dict[str, str]:
    """Return how far each network of a survey came, by the name of its config: `INT8 at 18.8 dB`, or where it ended.

    Args:
        page: as `survey.markdown` makes it.
    """
    came_through, _, stopped = page.partition("\n## Stopped\n")
    came_through = came_through.partition("\n### Left in float\n")[0]
    stopped = stopped.partition("\n## Sizes and times\n")[0]
    # The signal-to-noise ratio in INT8 is the sixth column after the name, the stage that stopped it the second.
    return {name: f"INT8 at {cells[5]}" for name, cells in _rows(came_through)} | {
        name: f"stops at: {cells[1]}" for name, cells in _rows(stopped)
    }


def _rows(part: str) -> Iterable[tuple[str, list[str]]]:
    for line in _LINE.finditer(part):
        yield line["name"], [cell.strip() for cell in line["cells"].split("|")]


def _line(network: IndexedNetwork, states: Mapping[str, str]) -> dict[str, str]:
    figures = next(iter(network.published), network.figures[0])
    return {
        "Name": network.name,
        "Dataset": figures.dataset,
        "Input": "x".join(map(str, network.input_size or ())) or "-",
        "Keypoints": str(network.keypoints or "-"),
        "Published": _main(figures),
        "State": states.get(network.name) or _state(network),
    }


def _main(figures: Figures) -> str:
    name = next((name for name in _MAIN if name in figures.metrics), None) or next(iter(figures.metrics))
    return f"{name} {figures.metrics[name]:g}"


def _state(network: IndexedNetwork) -> str:
    """Return what is known of a network that was not surveyed."""
    if network.config is None:
        return "not by name: no config"
    if network.checkpoint is None:
        return "not by name: no checkpoint"
    return "not tried" if network.top_down else "not top-down"
