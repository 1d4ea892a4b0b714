"""What a device gets of a model: its networks in ncnn, and crops of people."""

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from posequant.base.files import whole
from posequant.base.model_spec import ModelSpec
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import evaluation_instances, require_sizes
from posequant.devices.exchange import Way, write_networks, write_people

# The earliest that a zip archive can say: the same content gives the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def write_package(target: Path, spec: ModelSpec, ways: Mapping[str, Way]) -> None:
    """Write the archive of networks that the runner takes; the same networks give the same bytes.

    Args:
        target: the archive to write, .zip.
        spec: the model description.
        ways: the networks, by the names of their rows.

    Raises:
        InputError: a network is damaged, or is not one of the model's: what ncnn would crash on is found here.
    """
    for way in ways.values():
        way.network(spec)
    with tempfile.TemporaryDirectory() as folder, whole(target) as draft:
        write_networks(Path(folder, "networks"), spec, ways)
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(Path(folder, "networks").iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name, _TIME), path.read_bytes())


def write_crops(target: Path, model: Path, annotations: Path, images: Path, detections: Path | None) -> int:
    """Write the crops of all people of an evaluation set as the runner takes them, and return how many they are.

    Args:
        target: the file to write, .npz.
        model: the model description, `model.json`.
        annotations: COCO keypoint annotations of the evaluation set.
        images: folder of the images.
        detections: COCO detection results whose boxes are taken in place of the annotated ones.

    Raises:
        InputError: an input is missing or damaged.
    """
    spec = ModelSpec.load(model)
    instances = evaluation_instances(annotations, detections, spec.keypoints)
    require_sizes(images, instances, 1, 1)
    crops = crops_of_images(Cropper(spec), instances, images)
    write_people(target, crops(np.arange(len(instances))))
    return len(instances)
