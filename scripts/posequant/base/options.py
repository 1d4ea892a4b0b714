"""Options that several scripts have.

They are no part of `command`, which every script imports: an edit here reruns the steps that have such options only.
"""

from argparse import ArgumentParser
from pathlib import Path


def add_artifact_option(parser: ArgumentParser) -> None:
    """Add `--artifact`: the files of a script's network, as `verify.as_made` takes them."""
    parser.add_argument(
        "--artifact",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="files of the network: mmpose config and checkpoint; .onnx; .xml and .bin; or .param and .bin. The record "
        "(.json) of their maker may follow; they are compared with it",
    )


def add_record_option(parser: ArgumentParser) -> None:
    """Add `--record`: what the maker of a script's network wrote down, for `verify.as_made`."""
    parser.add_argument(
        "--record", type=Path, help="what the network's maker recorded (JSON); its files are compared with that"
    )


def add_pair_options(parser: ArgumentParser) -> None:
    """Add the options of a step that compares an INT8 network with the float network of the same layers."""
    parser.add_argument("--param", type=Path, required=True, help="the float network's .param")
    parser.add_argument("--bin", type=Path, required=True, help="its .bin")
    parser.add_argument("--int8-param", type=Path, required=True, help="the INT8 network's .param")
    parser.add_argument("--int8-bin", type=Path, required=True, help="its .bin")
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--variant", required=True, help="name of the INT8 network")


def add_keypoints_option(parser: ArgumentParser) -> None:
    """Add `--keypoints`: the set of keypoints of a study, for `find_keypoints`."""
    parser.add_argument(
        "--keypoints",
        default="coco",
        help="set of keypoints: coco, the name of one that mmpose ships, or a file (default: %(default)s)",
    )


def add_choice_options(parser: ArgumentParser) -> None:
    """Add the options of a step that chooses people of the training split, none of whom are evaluated on."""
    parser.add_argument(
        "--annotations", type=Path, required=True, help="COCO keypoint annotations of the training split"
    )
    parser.add_argument(
        "--evaluation-annotations", type=Path, required=True, help="those of the split that is evaluated on"
    )
    add_keypoints_option(parser)
    parser.add_argument("--out", type=Path, required=True, help="chosen people to write, .json")


def add_compared_options(parser: ArgumentParser) -> None:
    """Add the options of a step that compares a row in reduced precision with FP32 in the same runtime."""
    parser.add_argument("--predictions", type=Path, required=True, help="predictions of the network, .npz")
    parser.add_argument(
        "--reference", type=Path, required=True, help="predictions of the FP32 network in the same runtime, .npz"
    )
    parser.add_argument(
        "--annotations", type=Path, required=True, help="the COCO keypoint annotations that were predicted for"
    )
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    add_artifact_option(parser)
    parser.add_argument(
        "--reference-artifact", type=Path, nargs="+", required=True, metavar="FILE", help="files of the FP32 network"
    )


def add_people_options(parser: ArgumentParser) -> None:
    """Add the options of a step that reads the evaluation set and crops its people."""
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO keypoint annotations of the images")
    parser.add_argument(
        "--detections",
        type=Path,
        nargs="?",
        help="COCO detection results; their boxes are taken in place of the annotated ones",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads that work (default: %(default)s)")


def add_jobs_option(parser: ArgumentParser) -> None:
    """Add `--job`: what a device gets of a model, once for each."""
    parser.add_argument(
        "--job",
        dest="jobs",
        action="append",
        nargs=3,
        required=True,
        metavar=("MODEL", "NETWORKS", "PEOPLE"),
        help="a model, once for each: its name, what device_networks.py wrote and what device_people.py wrote",
    )


def add_rows_option(parser: ArgumentParser, words: str) -> None:
    """Add `--row`: a network, once for each, by the `words` that it is given by and the record of its files' maker."""
    parser.add_argument(
        "--row",
        dest="rows",
        action="append",
        nargs="+",
        required=True,
        metavar="WORD",
        help=f"a network, once for each: {words}, and, if there is one, the record of their maker",
    )
