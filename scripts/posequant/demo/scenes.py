"""The demo's datasets: seeded scenes of synthetic people or hands, written as COCO keypoints.

Each image is drawn from a random generator of its own, seeded by (seed, split, index). Images therefore depend on
nothing but these three: the same bytes come out of any number of processes, and a smaller dataset is the beginning
of a larger one.
"""

import multiprocessing
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.files import write_json
from posequant.demo import drawing
from posequant.demo.drawing import Figure, Kind
from posequant.demo.hand import HAND
from posequant.demo.person import PERSON

KINDS = {kind.name: kind for kind in (PERSON, HAND)}

# What each split's image ids start after: no id is ever in both.
FIRST_ID = {"train": 0, "val": 1_000_000}

# A body of which less is seen is not annotated: no annotator could.
MIN_SEEN_SHARE = 0.4


@dataclass(frozen=True)
class Scene:
    """A finished image and the bodies in it.

    Attributes:
        image: uint8 BGR.
        jpeg_quality: 0..100.
        annotations: of each body in COCO's format, without `id` and `image_id`.
    """

    image: drawing.Image
    jpeg_quality: int
    annotations: list[dict[str, Any]]


def _crowds(figure: Figure, others: list[Figure], apart: float) -> bool:
    """Whether a figure is so close to another that neither could be told apart."""
    return any(np.linalg.norm(figure.middle - other.middle) < apart * max(figure.size, other.size) for other in others)


def _annotation(
    figure: Figure, kind: Kind, number: int, silhouette: Any, canvas: drawing.Labels
) -> dict[str, Any] | None:
    """Return a figure's COCO annotation, or None if too little of it is seen.

    Args:
        figure: the body.
        kind: what it is.
        number: its number in the scene.
        silhouette: bool, shape of `canvas`: where it would be seen with nothing in front.
        canvas: the finished label map.
    """
    first = drawing.first_label(number)
    seen = int(np.count_nonzero((canvas >= first) & (canvas < first + drawing.LABELS_PER_FIGURE)))
    flags = drawing.visibility(canvas, figure, kind, number)
    area = int(np.count_nonzero(silhouette))
    if seen < MIN_SEEN_SHARE * area or (flags == 2).sum() < kind.min_visible:
        return None
    columns, rows = np.flatnonzero(silhouette.any(axis=0)), np.flatnonzero(silhouette.any(axis=1))
    left, top = columns[0] / drawing.SCALE, rows[0] / drawing.SCALE
    right, bottom = (columns[-1] + 1) / drawing.SCALE, (rows[-1] + 1) / drawing.SCALE
    keypoints: list[float] = []
    for name, flag in zip(kind.keypoints, flags.tolist(), strict=True):
        x, y = figure.points[name][:2]
        keypoints += [round(float(x), 2), round(float(y), 2), flag] if flag else [0, 0, 0]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [float(left), float(top), float(right - left), float(bottom - top)],
        "area": area / drawing.SCALE**2,
        "num_keypoints": int(np.count_nonzero(flags)),
        "keypoints": keypoints,
    }


def draw_scene(seed: int, split: str, index: int, kind: Kind = PERSON) -> Scene:
    """Draw the image number `index` of a split; at least one body is annotated in it."""
    rng = np.random.default_rng((seed, FIRST_ID[split], index))
    while not (scene := _attempt(kind, rng)).annotations:
        pass
    return scene


def _attempt(kind: Kind, rng: np.random.Generator) -> Scene:
    width, height = int(rng.integers(*kind.widths)), int(rng.integers(*kind.heights))
    figures: list[Figure] = []
    for _ in range(1 + int(rng.choice(len(kind.crowds), p=kind.crowds))):
        figure = kind.sample(width, height, rng)
        if not _crowds(figure, figures, kind.apart):
            figures.append(figure)
    # Larger bodies are nearer, and nearer ones are drawn last.
    figures.sort(key=lambda figure: figure.size)

    canvas = np.zeros((drawing.SCALE * height, drawing.SCALE * width), np.uint8)
    palette, pattern = np.zeros((256, 3), np.uint8), np.zeros(256, np.float32)
    silhouettes = []
    for number, figure in enumerate(figures):
        alone = np.zeros_like(canvas)
        drawing.draw_figure(alone, figure, number)
        silhouettes.append(alone > 0)
        np.copyto(canvas, alone, where=silhouettes[-1])
        first, looks = drawing.first_label(number), kind.paint(rng)
        for part, color in looks.colors.items():
            palette[first + part] = color
        for part, strength in looks.patterns.items():
            pattern[first + part] = strength
    for number in range(int(rng.choice(len(kind.objects), p=kind.objects))):
        label = drawing.FIRST_OBJECT_LABEL + number
        target = figures[rng.integers(len(figures))]
        joint = target.points[kind.keypoints[rng.integers(len(kind.keypoints))]][:2]
        spread = rng.normal(0, 0.12 * target.size, 2)
        drawing.draw_object(canvas, label, joint + spread, rng.uniform(0.15, 0.45) * target.size, rng)
        palette[label] = rng.uniform(10, 245, 3)
        pattern[label] = rng.uniform(0, 60) if rng.random() < 0.5 else 0

    found = (_annotation(figure, kind, i, silhouettes[i], canvas) for i, figure in enumerate(figures))
    annotations = [annotation for annotation in found if annotation]
    backdrop = drawing.draw_background((height, width), rng)
    scene = drawing.colorize(canvas, palette, pattern, backdrop, rng)
    image, quality = drawing.photograph(scene, rng)
    return Scene(image, quality, annotations)


def image_name(image_id: int) -> str:
    """Return an image's file name, as COCO names its images."""
    return f"{image_id:012d}.jpg"


def _write_image(job: tuple[Path, int, str, int, Kind]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw one image into a folder; return its COCO image entry and its annotations without ids."""
    folder, seed, split, index, kind = job
    scene = draw_scene(seed, split, index, kind)
    image_id = FIRST_ID[split] + index + 1
    path = folder / image_name(image_id)
    if not cv2.imwrite(str(path), scene.image, [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality]):
        raise OSError(f"{path}: could not be written")
    height, width = scene.image.shape[:2]
    entry = {"id": image_id, "file_name": path.name, "width": width, "height": height, "license": 1}
    return entry, [{"image_id": image_id, **annotation} for annotation in scene.annotations]


def write_dataset(out: Path, counts: dict[str, int], seed: int, processes: int = 1, kind: Kind = PERSON) -> None:
    """Write a dataset in COCO's layout into the folder `out`, which is created.

    Files: `{split}/{image id}.jpg` and `annotations/person_keypoints_{split}.json`.

    Args:
        out: the folder to create.
        counts: number of images by split, `train` and `val`; each at most a million.
        seed: non-negative; everything drawn follows from it.
        processes: number of processes that draw; the files do not depend on it.
        kind: what is drawn.

    Raises:
        InputError: a count or the seed is out of range.
    """
    for split, count in counts.items():
        if not 1 <= count <= FIRST_ID["val"]:
            raise InputError(f"{count} {split} images were asked for: give a number from 1 to {FIRST_ID['val']}.")
    if seed < 0:
        raise InputError(f"the seed is {seed}: give a number that is not negative.")
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        for split, count in counts.items():
            folder = out / split
            folder.mkdir(parents=True)
            jobs = [(folder, seed, split, index, kind) for index in range(count)]
            drawn = pool.imap(_write_image, jobs, chunksize=16)
            entries = list(tqdm(drawn, f"drawing {split}", count, file=sys.stderr, mininterval=1, unit="image"))
            _write_annotations(
                out, split, f"PoseQuant's synthetic {kind.plural}, {split} split, seed {seed}", entries, kind
            )


def _write_annotations(
    out: Path, split: str, description: str, entries: list[tuple[dict[str, Any], list[dict[str, Any]]]], kind: Kind
) -> None:
    annotations = [annotation for _, found in entries for annotation in found]
    for number, annotation in enumerate(annotations):
        annotation["id"] = FIRST_ID[split] + number + 1
    write_json(
        out / "annotations" / f"person_keypoints_{split}.json",
        {
            "info": {"description": description, "version": "1.0", "year": 2026},
            "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
            "images": [entry for entry, _ in entries],
            "annotations": annotations,
            "categories": [
                {
                    "supercategory": kind.name,
                    "id": 1,
                    "name": kind.name,
                    "keypoints": list(kind.keypoints),
                    # Counted from 1 there.
                    "skeleton": [[first + 1, second + 1] for first, second in kind.skeleton],
                }
            ],
        },
    )
