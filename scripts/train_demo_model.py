"""Train a demo's network on drawn images, on the CPU; an interrupted run resumes when it is started again."""

import argparse
from pathlib import Path

from posequant.base.command import command

CONFIG = Path(__file__).resolve().parents[1] / "models" / "hourglass_demo" / "config.py"


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that demo_dataset.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--work-dir", type=Path, required=True, help="folder for logs and for resuming")
    parser.add_argument("--epochs", type=int, help="number of epochs (default: the config's)")
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="mmpose config (default: that of the network for people)"
    )
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.demo.training import save_weights, train

    weights = train(arguments.config, arguments.data, arguments.work_dir, arguments.epochs)
    save_weights(weights, arguments.out)


if __name__ == "__main__":
    main()
