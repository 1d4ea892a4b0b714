"""The index of trained networks that mmpose ships (`.mim/model-index.yml`), read without importing mmpose.

The index lists metafiles, each with the networks of a paper on a dataset: config, checkpoint, results. Where it
contradicts itself, this is what counts (mmpose 1.3.2; the tests name every case):

- A network's name is that of its config's file. The `Name` of four entries is another; it finds them too, unless it is
  the name of another network's config. `Alias` finds them last.
- A config that is listed twice is one network with the results of both entries.
- A config whose path is not shipped is the shipped one of the same name.
- A checkpoint that is given to two networks belongs to the one whose name its file has; the other has none.
- An address in brackets is meant without them.
- Of two results on one dataset nothing says how they differ: neither is taken for a published figure.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from posequant.base.errors import InputError
from posequant.base.openmmlab import shipped_configs, shipped_folder

# The names of statistics in the metafiles. EPE has too few digits there to be compared.
_STATISTICS = {
    "AP": "AP", "AP@0.5": "AP50", "AP@0.75": "AP75", "AP (M)": "APM", "AP (L)": "APL", "AR": "AR", "AR@0.5": "AR50",
    "PCK@0.2": "PCK", "AUC": "AUC",
}  # fmt: skip
# The folders of the approaches that crop a person and predict one pose.
_TOP_DOWN = ("topdown_heatmap", "topdown_regression", "integral_regression", "rtmpose", "simcc")
# The file of annotations, and the boxes, that the results of a dataset were evaluated on, by the configs. mmpose's
# pages on COCO and Human-Art state the boxes of all top-down networks: "with detector having human AP of 56.4 on COCO
# val2017 dataset", "with detector having human AP of 56.2" and "with ground-truth bounding-box".
_EVALUATED_ON = {
    "COCO": ("person_keypoints_val2017.json", "detections"),
    "Human-Art": ("validation_humanart.json", "detections"),
    "Human-Art(GT)": ("validation_humanart.json", "ground-truth"),
    "Animal-Pose": ("animalpose_val.json", "ground-truth"),
    "OneHand10K": ("onehand10k_test.json", "ground-truth"),
    "RHD": ("rhd_test.json", "ground-truth"),
}
_FLIP_TEST = re.compile(r"^[^#\n]*\bflip_test\s*=\s*(True|False)", re.MULTILINE)
_INPUT_SIZE = re.compile(r"^[^#\n]*\binput_size\s*=\s*[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]", re.MULTILINE)
# Heads that predict offsets as well have three channels for each keypoint.
_KEYPOINTS = re.compile(r"^[^#\n]*\b(?:out_channels|num_joints|num_keypoints)\s*=\s*(?:3\s*\*\s*)?(\w+)", re.MULTILINE)
_BASES = re.compile(r"^_base_\s*=\s*(\[[^\]]*\]|['\"][^'\"]*['\"])", re.MULTILINE)


@dataclass(frozen=True)
class Figures:
    """What the index says that a network scores.

    Attributes:
        dataset: as the index has it, such as `COCO` or `Human-Art(GT)`.
        metrics: by their names in the index.
    """

    dataset: str
    metrics: Mapping[str, float]

    @property
    def statistics(self) -> dict[str, float]:
        """Those of them that are measured here, too, by their names here."""
        return {_STATISTICS[name]: float(value) for name, value in self.metrics.items() if name in _STATISTICS}

    @property
    def annotations(self) -> str | None:
        """The name of the file of annotations that was evaluated on; None where it is not known."""
        return _EVALUATED_ON[self.dataset][0] if self.dataset in _EVALUATED_ON else None

    @property
    def boxes(self) -> str | None:
        """Whose boxes these were, as a study's protocol says it; None where it is not known."""
        return _EVALUATED_ON[self.dataset][1] if self.dataset in _EVALUATED_ON else None


@dataclass(frozen=True)
class IndexedNetwork:
    """A network of the index.

    Attributes:
        name: of its config.
        other_names: other names that find it.
        config: its config, a file; None where mmpose does not ship it.
        checkpoint: address of its weights; None where the index gives that of another network.
        architecture: its parts, such as `SimpleBaseline2D` and `ResNet`.
        approach: of mmpose, such as `topdown_heatmap`.
        trained_on: names of datasets.
        figures: what it scores.
        metafile: the name of the file that lists it.
    """

    name: str
    other_names: tuple[str, ...]
    config: Path | None
    checkpoint: str | None
    architecture: tuple[str, ...]
    approach: str
    trained_on: tuple[str, ...]
    figures: tuple[Figures, ...]
    metafile: str

    @property
    def top_down(self) -> bool:
        """Whether it predicts the pose of one person in a crop."""
        return self.approach in _TOP_DOWN

    @property
    def published(self) -> list[Figures]:
        """What is published of it under a protocol that is known."""
        datasets = Counter(one.dataset for one in self.figures)
        return [
            one
            for one in self.figures
            if self.top_down and one.annotations and one.statistics and datasets[one.dataset] == 1
        ]

    @property
    def flip_test(self) -> bool:
        """Whether its figures are those of a flip test, as its config has it."""
        found = _in_config(self.config, _FLIP_TEST)
        return found is not None and found[1] == "True"

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height of its input in pixels, as its config has them; None where that is not plain."""
        found = _in_config(self.config, _INPUT_SIZE)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def keypoints(self) -> int | None:
        """How many keypoints it predicts, as the head in its config has it; None where that is not plain."""
        return _keypoints(self.config)


def networks() -> list[IndexedNetwork]:
    """Return all networks of 2D keypoints, in the order of the index.

    Raises:
        InputError: mmpose is not installed.
    """
    return [network for metafile in _metafiles() for network in _networks_of(metafile)]


def find_network(name: str) -> IndexedNetwork:
    """Return the network of a name. Only the metafiles that hold the name are read, a few milliseconds for each.

    Raises:
        InputError: there is none; the message has the names nearest to it. Or mmpose is not installed.
    """
    candidates = [network for metafile in _metafiles() if name in _text(metafile) for network in _networks_of(metafile)]
    exact = [network for network in candidates if network.name == name]
    # A name that is not the config's counts in the order in which it is listed: `Name` comes before `Alias`.
    others = [network for network in candidates if name in network.other_names]
    if found := exact or sorted(others, key=lambda network: network.other_names.index(name)):
        return found[0]
    known = [one for network in networks() for one in (network.name, *network.other_names)]
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5)
    near = f" The nearest are {', '.join(close)}." if close else ""
    raise InputError(f"mmpose's model index has no network '{name}'.{near} `make models` lists all.")


@cache
def _metafiles() -> tuple[Path, ...]:
    folder = shipped_folder()
    if folder is None or not (folder / "model-index.yml").is_file():
        raise InputError("mmpose's model index is not there. Install the pinned environment: make .venv/.ready")
    listed = yaml.safe_load((folder / "model-index.yml").read_text())["Import"]
    return tuple(folder / path for path in listed if "_2d_keypoint/" in path)


@cache
def _text(metafile: Path) -> str:
    return metafile.read_text(encoding="utf-8")


@cache
def _networks_of(metafile: Path) -> list[IndexedNetwork]:
    # The parser in C takes a tenth of the time.
    content = yaml.load(_text(metafile), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for entry in content["Models"]:
        entries.setdefault(Path(entry["Config"]).stem, []).append(entry)
    owners: dict[str, list[str]] = {}
    for name, (entry, *_) in entries.items():
        owners.setdefault(entry["Weights"], []).append(name)
    return [_network(name, same, owners, metafile) for name, same in entries.items()]


def _network(
    name: str, entries: list[Mapping[str, Any]], owners: Mapping[str, list[str]], metafile: Path
) -> IndexedNetwork:
    first = entries[0]
    folder = shipped_folder()
    assert folder is not None
    config = folder / first["Config"]
    address = first["Weights"]
    own = owners[address] == [name] or Path(address).name.startswith(name)
    other_names = [first["Name"], *_listed(first.get("Alias"))]
    return IndexedNetwork(
        name=name,
        other_names=tuple(one for one in other_names if one != name),
        config=config if config.is_file() else shipped_configs().get(name),
        # One begins with a bracket.
        checkpoint=address.strip("()") if own else None,
        architecture=tuple(_listed(first["Metadata"]["Architecture"])),
        approach=metafile.relative_to(folder / "configs").parts[1],
        trained_on=tuple(_listed(first["Metadata"]["Training Data"])),
        figures=tuple(
            Figures(result["Dataset"], result["Metrics"]) for entry in entries for result in entry["Results"]
        ),
        metafile=metafile.name,
    )


def _listed(value: str | Iterable[str] | None) -> list[str]:
    """Return what the index has as a text or as a list of texts."""
    return [value] if isinstance(value, str) else list(value or ())


def _texts(config: Path | None) -> Iterator[str]:
    """Yield the text of a config, then those of the configs that it inherits."""
    if config is None or not config.is_file():
        return
    text = config.read_text(encoding="utf-8")
    yield text
    if found := _BASES.search(text):
        for base in re.findall(r"['\"]([^'\"]+)['\"]", found[1]):
            yield from _texts(config.parent / base)


def _in_config(config: Path | None, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
    """Return the first match in a config, or else in those that it inherits."""
    return next((found for text in _texts(config) if (found := pattern.search(text))), None)


def _keypoints(config: Path | None) -> int | None:
    for text in _texts(config):
        _, head, rest = text.partition("head=dict(")
        found = _KEYPOINTS.search(rest)
        if head and found:
            number = re.search(rf"^{found[1]}\s*=\s*(\d+)", text, re.MULTILINE)
            return int(found[1]) if found[1].isdigit() else int(number[1]) if number else None
    return None
