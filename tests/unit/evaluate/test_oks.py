"""The loss of OKS is one figure, whether it is taken of calibration crops or of predictions."""

from pathlib import Path

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import draw_dataset
from tests.unit.pose_fixtures import SPEC, pose_network

from posequant.base.files import write_json
from posequant.data.calibration_set import choose_calibration_set, make_crops
from posequant.data.crop_files import People, load_crops
from posequant.data.dataset import ground_truth_instances, load_annotations
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.predict import make_predictions
from posequant.evaluate.yardstick import Yardstick
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table


def test_recipe_and_certificate_find_the_same_loss_for_the_same_people(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path / "people")
    elsewhere = draw_dataset(tmp_path / "elsewhere", seed=1, first_image=100)
    model, files = tmp_path / "model.json", (tmp_path / "m.param", tmp_path / "m.bin")
    SPEC.save(model)
    pose_network().write(*files)
    count = len(ground_truth_instances(load_annotations(dataset.annotations)))
    chosen = choose_calibration_set(dataset.annotations, elsewhere.annotations, count, seed=0)
    write_json(tmp_path / "calibration.json", chosen)
    make_crops(model, tmp_path / "calibration.json", dataset.images, tmp_path / "crops")
    write_table(tmp_path / "table", *files, tmp_path / "crops", "kl")
    int8_files = tmp_path / "int8.param", tmp_path / "int8.bin"
    quantize_files(*files, tmp_path / "table", *int8_files)

    full, int8 = (
        make_predictions(
            model=model,
            variant=precision,
            backend="ncnn",
            precision=precision,
            artifacts=artifacts,
            images=dataset.images,
            annotations=dataset.annotations,
            detections=None,
            flip_test=False,
            threads=1,
        )
        for precision, artifacts in (("fp32", files), ("int8", int8_files))
    )
    certified = shift_of_predictions(full, int8)

    crops, people = load_crops(tmp_path / "crops", limit=None), People.load(tmp_path / "crops")
    outputs = [
        NcnnNetwork(*artifacts, precision, SPEC.input_shape, SPEC.output_shapes).forward(crops)
        for precision, artifacts in (("fp32", files), ("int8", int8_files))
    ]
    yardstick = Yardstick(SPEC, people, outputs[0])
    judged = yardstick.shift(yardstick.decode(outputs[1])[0])

    order = [full.ids.tolist().index(person["annotation_id"]) for person in chosen["people"]]
    np.testing.assert_allclose(judged.oks, certified.oks[order], atol=1e-6)
    assert certified.mean_oks is not None
    assert 0.01 < 1 - certified.mean_oks < 0.9, "the networks must differ for this to say anything"
    assert yardstick.measure(outputs[1]).oks_loss == pytest.approx(1 - certified.mean_oks, abs=1e-6)
