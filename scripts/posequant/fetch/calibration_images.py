"""Photographs fetched one by one, where a folder of all is not at hand: of a calibration set, of an evaluation set."""

import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.data.calibration_set import load_people
from posequant.data.dataset import ImageFile, load_image_addresses, read_image
from posequant.fetch.download import Patience, download


def image_addresses(calibration: Path, annotations: Path) -> dict[ImageFile, str]:
    """Return the images of a calibration set, each with its URL: the `coco_url` that COCO's annotations give.

    Args:
        calibration: what `choose_calibration_set` chose, `calibration.json`.
        annotations: the COCO keypoint annotations that it was chosen from.

    Raises:
        InputError: a file is missing or damaged, or the annotations do not say where an image is.
    """
    return _addresses([person.image for person in load_people(calibration)], annotations, "train")


def _addresses(images: Iterable[ImageFile] | None, annotations: Path, split: str) -> dict[ImageFile, str]:
    """Return where images are fetched from; all of the annotations where none are named."""
    known = load_image_addresses(annotations)
    found = {}
    for image in known if images is None else images:
        address = known.get(image)
        if not isinstance(address, str) or not address:
            raise InputError(
                f"{annotations}: image {image.id} has no coco_url to fetch it from. Name the folder of the images "
                f"as the `images` of the dataset's `{split}`."
            )
        found[image] = address
    return found


def fetch_images(
    addresses: Mapping[ImageFile, str], folder: Path, connections: int = 8, patience: Patience | None = None
) -> None:
    """Fetch images into `folder`, several at a time; those that are there and sound are kept.

    Args:
        addresses: the URL of each image.
        folder: of the images; created where it is missing. An image lies at its `file_name`.
        connections: how many are fetched at the same time.
        patience: with the servers.

    Raises:
        InputError: an image cannot be fetched, is damaged, or has another size than annotated. The images that have
            arrived stay in `folder`.
    """
    for image in addresses:
        path = PurePosixPath(image.file_name)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"image {image.id}: its file_name '{image.file_name}' leads out of the folder of images")
    kept = {image for image in addresses if _is_sound(folder, image)}
    received = 0
    with (
        ThreadPoolExecutor(connections) as pool,
        tqdm(desc="fetching images", total=len(addresses), initial=len(kept), unit="image", mininterval=2) as bar,
    ):
        jobs = {
            pool.submit(_fetch_image, url, folder, image, patience): image
            for image, url in addresses.items()
            if image not in kept
        }
        try:
            for job in as_completed(jobs):
                job.result()
                received += (folder / jobs[job].file_name).stat().st_size
                bar.set_postfix_str(f"{received / (1 << 20):.1f} MiB", refresh=False)
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def fetch_calibration_images(calibration: Path, annotations: Path, folder: Path, known: Path | None = None) -> None:
    """Fetch the images of a calibration set; `folder` appears when all are there.

    Until then they are in `FOLDER.part`, where the next call finds them.

    Args:
        calibration: the people who were chosen, `calibration.json` or another of its form.
        annotations: the COCO keypoint annotations that they were chosen from.
        folder: where to write.
        known: a folder of images that were fetched before, which are copied from there.

    Raises:
        InputError: as `image_addresses` and `fetch_images`, or `folder` exists.
    """
    _fetch_whole(image_addresses(calibration, annotations), folder, known)


def fetch_evaluation_images(annotations: Path, folder: Path) -> None:
    """Fetch the images of an evaluation set, or of a subset of it, as `fetch_calibration_images` does.

    Args:
        annotations: its COCO keypoint annotations; all their images are fetched.
        folder: where to write.

    Raises:
        InputError: an image has no `coco_url`; as `fetch_images`; or `folder` exists.
    """
    _fetch_whole(_addresses(None, annotations, "val"), folder)


def _fetch_whole(addresses: Mapping[ImageFile, str], folder: Path, known: Path | None = None) -> None:
    if folder.exists():
        raise InputError(f"{folder}: exists already. Delete it to fetch the images anew.")
    part = folder.with_name(f"{folder.name}.part")
    for image in addresses if known else ():
        if known and _is_sound(known, image):
            (part / image.file_name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(known / image.file_name, part / image.file_name)
    fetch_images(addresses, part)
    part.replace(folder)


def _fetch_image(url: str, folder: Path, image: ImageFile, patience: Patience | None) -> None:
    def require_sound(path: Path) -> None:
        read_image(path.parent, replace(image, file_name=path.name))

    download(url, folder / image.file_name, require_sound, patience, show_progress=False)


def _is_sound(folder: Path, image: ImageFile) -> bool:
    try:
        read_image(folder, image)
    except InputError:
        return False
    return True
