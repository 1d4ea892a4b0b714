from pathlib import Path

import numpy as np
from pycocotools.cocoeval import Params

from posequant.base.keypoints import FLIP_INDICES, KEYPOINTS, SIGMAS, SKELETON
from posequant.base.openmmlab import make_importable


def test_keypoints_are_those_of_mmpose_and_pycocotools() -> None:
    make_importable()
    import mmpose
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    description = Path(mmpose.__file__).parent / ".mim/configs/_base_/datasets/coco.py"
    metainfo = parse_pose_metainfo({"from_file": str(description)})
    assert list(KEYPOINTS) == [metainfo["keypoint_id2name"][place] for place in range(17)]
    assert list(FLIP_INDICES) == metainfo["flip_indices"]
    assert list(SKELETON) == metainfo["skeleton_links"]
    np.testing.assert_array_equal(np.array(SIGMAS, np.float32), metainfo["sigmas"])
    np.testing.assert_allclose(SIGMAS, Params(iouType="keypoints").kpt_oks_sigmas)
