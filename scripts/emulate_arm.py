"""Run an INT8 network of ncnn on an emulated ARM core: predict keypoints, and compare its values with those on x86."""

import argparse
from pathlib import Path

from posequant.base.command import command
from posequant.base.options import add_artifact_option, add_people_options
from posequant.workflow.settings.devices import CORES


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_people_options(parser)
    parser.add_argument("--variant", required=True, help="name of the row that the network belongs to")
    add_artifact_option(parser)
    parser.add_argument(
        "--reference-artifact", type=Path, nargs="+", required=True, metavar="FILE", help="files of the FP32 network"
    )
    parser.add_argument(
        "--crops", type=Path, help="what evaluation_crops.py wrote; without it, images are read and cropped"
    )
    parser.add_argument("--flip-test", action="store_true", help="average with the prediction for the mirrored crop")
    parser.add_argument("--core", choices=CORES, required=True, help="the core, as qemu names it")
    parser.add_argument(
        "--emulation",
        type=Path,
        default=Path(__file__).resolve().parents[1] / ".arm",
        help="folder that `make arm` made (default: that of this checkout)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="predictions to write, .npz; what is on the way lies hidden beside them"
    )
    parser.add_argument("--out-comparison", type=Path, required=True, help="comparison with x86 to write (JSON)")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    import shutil

    from posequant.base.files import write_json
    from posequant.devices.arm import emulate

    workplace = arguments.out.with_name(f".{arguments.out.stem}.part")
    predictions, comparison = emulate(
        core=arguments.core,
        emulation=arguments.emulation,
        model=arguments.model,
        variant=arguments.variant,
        artifacts=arguments.artifact,
        reference_artifacts=arguments.reference_artifact,
        annotations=arguments.annotations,
        images=arguments.images,
        detections=arguments.detections,
        crops=arguments.crops,
        flip_test=arguments.flip_test,
        threads=arguments.threads,
        workplace=workplace,
    )
    write_json(arguments.out_comparison, comparison)
    predictions.save(arguments.out)
    shutil.rmtree(workplace)


if __name__ == "__main__":
    main()
