"""Write the file of a first study of a network, with the normalisation and the codec that fit it on some people."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", help="your network: an .onnx file, ncnn's .param, or the name of mmpose's config")
    parser.add_argument("--images", required=True, help="folder of the images to evaluate on")
    parser.add_argument(
        "--annotations", required=True, help="COCO keypoint annotations of these images; some of their people are tried"
    )
    parser.add_argument(
        "--keypoints", help="set of keypoints of the annotations, as a study's dataset.keypoints (default: COCO's)"
    )
    parser.add_argument("--train-images", help="folder of images to calibrate on (default: COCO's, fetched)")
    parser.add_argument("--train-annotations", help="COCO keypoint annotations of these images")
    parser.add_argument("--name", help="of the study and its model (default: from the network's)")
    parser.add_argument(
        "--variants", nargs="+", metavar="ROW", help="rows of the study (default: FP32, and ncnn's INT8)"
    )
    parser.add_argument("--checkpoint", help="path or address of the weights, for a network of mmpose")
    parser.add_argument("--bin", type=Path, help="for a .param: its .bin (default: the file beside it)")
    parser.add_argument("--input", metavar="BLOB", help="for a .param: blob that takes the crop")
    parser.add_argument("--decoded", nargs="+", metavar="BLOB", help="for a .param: blobs that the codec decodes")
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        metavar=("WIDTH", "HEIGHT"),
        help="for a .param that does not say it: size of the crop in pixels",
    )
    parser.add_argument(
        "--mean", type=float, nargs=3, help="subtracted from pixels of 0 to 255, where it is known; needs --std"
    )
    parser.add_argument("--std", type=float, nargs=3, help="divides them afterwards; needs --mean")
    parser.add_argument("--bgr", action="store_true", help="with --mean and --std: the network takes BGR")
    parser.add_argument("--padding", type=float, default=1.25, help="factor of the box (default: %(default)s)")
    parser.add_argument("--dark", action="store_true", help="take a codec that refines by DARK, if it scores better")
    parser.add_argument("--people", type=int, default=48, help="how many people to try on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of their choice (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="how many threads work (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="study file to write (default: NAME.yaml here)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.study.new_study import Wanted, new_study

    workflow = Path(__file__).resolve().parents[1]
    print(new_study(Wanted(**vars(arguments)), workflow))


if __name__ == "__main__":
    main()
