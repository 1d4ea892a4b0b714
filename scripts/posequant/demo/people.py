"""The demo's dataset: seeded scenes of synthetic people, written as COCO keypoints.

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
from posequant.base.keypoints import KEYPOINTS, SKELETON
from posequant.demo import drawing
from posequant.demo.skeleton import (
    View,
    body_points,
    project,
    sample_build,
    sample_pose,
    sample_yaw,
)

# What each split's image ids start after: no id is ever in both.
FIRST_ID = {"train": 0, "val": 1_000_000}

# A person of whom less is seen is not annotated: no annotator could.
MIN_SEEN_SHARE = 0.4
MIN_VISIBLE_KEYPOINTS = 6


@dataclass(frozen=True)
class Scene:
    """A finished image and its people.

    Attributes:
        image: uint8 BGR.
        jpeg_quality: 0..100.
        people: one COCO annotation each, without `id` and `image_id`.
    """

    image: drawing.Image
    jpeg_quality: int
    people: list[dict[str, Any]]


def _sample_figure(width: int, height: int, rng: np.random.Generator) -> drawing.Figure:
    """Draw a person's pose, build, size and place in an image of `width` x `height` pixels."""
    tall = float(np.exp(rng.uniform(np.log(115), np.log(340))))
    # Large people stand lower, so that it is their legs that the border cuts off.
    center = (rng.uniform(0.08, 0.92) * width, height * rng.uniform(0.4, 0.75) + max(0.0, tall - height) * 0.5)
    roll = rng.normal(0, 0.1) if rng.random() < 0.95 else rng.uniform(-0.9, 0.9)
    view = View(sample_yaw(rng), rng.normal(0.12, 0.13), roll, tall, center)
    build, pose = sample_build(rng), sample_pose(rng)
    return drawing.Figure(
        points=project(body_points(pose, build), view),
        build=build,
        height=tall,
        long_hair=bool(rng.random() < 0.35),
        short_sleeves=bool(rng.random() < 0.5),
    )


def _crowds(figure: drawing.Figure, others: list[drawing.Figure]) -> bool:
    """Whether a figure's torso is so close to another's that neither could be told apart."""
    hips = [(f.points["left_hip"] + f.points["right_hip"])[:2] / 2 for f in (figure, *others)]
    return any(
        np.linalg.norm(hips[0] - hip) < 0.25 * max(figure.height, other.height)
        for hip, other in zip(hips[1:], others, strict=True)
    )


def _annotation(figure: drawing.Figure, person: int, silhouette: Any, canvas: drawing.Labels) -> dict[str, Any] | None:
    """Return a person's COCO annotation, or None if too little of the person is seen.

    Args:
        figure: the person.
        person: the person's number in the scene.
        silhouette: bool, shape of `canvas`: where the person would be seen with nothing in front.
        canvas: the finished label map.
    """
    first = drawing.person_label(person, drawing.Part(0))
    seen = int(np.count_nonzero((canvas >= first) & (canvas < first + drawing.LABELS_PER_PERSON)))
    flags = drawing.visibility(canvas, figure, person)
    area = int(np.count_nonzero(silhouette))
    if seen < MIN_SEEN_SHARE * area or (flags == 2).sum() < MIN_VISIBLE_KEYPOINTS:
        return None
    columns, rows = np.flatnonzero(silhouette.any(axis=0)), np.flatnonzero(silhouette.any(axis=1))
    left, top = columns[0] / drawing.SCALE, rows[0] / drawing.SCALE
    right, bottom = (columns[-1] + 1) / drawing.SCALE, (rows[-1] + 1) / drawing.SCALE
    keypoints: list[float] = []
    for name, flag in zip(KEYPOINTS, flags.tolist(), strict=True):
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


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """Draw the image number `index` of a split; at least one person is annotated in it."""
    rng = np.random.default_rng((seed, FIRST_ID[split], index))
    while not (scene := _attempt(rng)).people:
        pass
    return scene


def _attempt(rng: np.random.Generator) -> Scene:
    width, height = int(rng.integers(280, 361)), int(rng.integers(232, 301))
    figures: list[drawing.Figure] = []
    for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.42, 0.34, 0.16, 0.08]))):
        figure = _sample_figure(width, height, rng)
        if not _crowds(figure, figures):
            figures.append(figure)
    # Larger people are nearer, and nearer people are drawn last.
    figures.sort(key=lambda figure: figure.height)

    canvas = np.zeros((drawing.SCALE * height, drawing.SCALE * width), np.uint8)
    palette, pattern = np.zeros((256, 3), np.uint8), np.zeros(256, np.float32)
    silhouettes = []
    for person, figure in enumerate(figures):
        alone = np.zeros_like(canvas)
        drawing.draw_person(alone, figure, person)
        silhouettes.append(alone > 0)
        np.copyto(canvas, alone, where=silhouettes[-1])
        drawing.paint_person(palette, pattern, person, rng)
    for number in range(int(rng.choice([0, 1, 2, 3], p=[0.5, 0.32, 0.12, 0.06]))):
        label = drawing.FIRST_OBJECT_LABEL + number
        target = figures[rng.integers(len(figures))]
        joint = target.points[KEYPOINTS[rng.integers(len(KEYPOINTS))]][:2]
        spread = rng.normal(0, 0.12 * target.height, 2)
        drawing.draw_object(canvas, label, joint + spread, rng.uniform(0.15, 0.45) * target.height, rng)
        palette[label] = rng.uniform(10, 245, 3)
        pattern[label] = rng.uniform(0, 60) if rng.random() < 0.5 else 0

    annotations = (_annotation(f, i, silhouettes[i], canvas) for i, f in enumerate(figures))
    people = [annotation for annotation in annotations if annotation]
    backdrop = drawing.draw_background((height, width), rng)
    scene = drawing.colorize(canvas, palette, pattern, backdrop, rng)
    image, quality = drawing.photograph(scene, rng)
    return Scene(image, quality, people)


def image_name(image_id: int) -> str:
    """Return an image's file name, as COCO names its images."""
    return f"{image_id:012d}.jpg"


def _write_image(job: tuple[Path, int, str, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw one image into a folder; return its COCO image entry and its annotations without ids."""
    folder, seed, split, index = job
    scene = draw_scene(seed, split, index)
    image_id = FIRST_ID[split] + index + 1
    path = folder / image_name(image_id)
    if not cv2.imwrite(str(path), scene.image, [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality]):
        raise OSError(f"{path}: could not be written")
    height, width = scene.image.shape[:2]
    entry = {"id": image_id, "file_name": path.name, "width": width, "height": height, "license": 1}
    return entry, [{"image_id": image_id, **person} for person in scene.people]


def write_dataset(out: Path, counts: dict[str, int], seed: int, processes: int = 1) -> None:
    """Write a dataset in COCO's layout into the folder `out`, which is created.

    Files: `{split}/{image id}.jpg` and `annotations/person_keypoints_{split}.json`.

    Args:
        out: the folder to create.
        counts: number of images by split, `train` and `val`; each at most a million.
        seed: non-negative; everything drawn follows from it.
        processes: number of processes that draw; the files do not depend on it.

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
            jobs = [(folder, seed, split, index) for index in range(count)]
            drawn = pool.imap(_write_image, jobs, chunksize=16)
            entries = list(tqdm(drawn, f"drawing {split}", count, file=sys.stderr, mininterval=1, unit="image"))
            _write_annotations(out, split, seed, entries)


def _write_annotations(
    out: Path, split: str, seed: int, entries: list[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> None:
    annotations = [person for _, people in entries for person in people]
    for number, annotation in enumerate(annotations):
        annotation["id"] = FIRST_ID[split] + number + 1
    write_json(
        out / "annotations" / f"person_keypoints_{split}.json",
        {
            "info": {
                "description": f"PoseQuant's synthetic people, {split} split, seed {seed}",
                "version": "1.0",
                "year": 2026,
            },
            "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
            "images": [entry for entry, _ in entries],
            "annotations": annotations,
            "categories": [
                {
                    "supercategory": "person",
                    "id": 1,
                    "name": "person",
                    "keypoints": list(KEYPOINTS),
                    # Counted from 1 there.
                    "skeleton": [[first + 1, second + 1] for first, second in SKELETON],
                }
            ],
        },
    )
