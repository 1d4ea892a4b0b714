"""Copy the weights of a checkpoint that holds code to a file of their own. Nothing that it holds is run."""

import argparse
from pathlib import Path

from posequant.base.command import command


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint whose origin you trust")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint of weights alone to write")
    return parser.parse_args()


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    import torch

    from posequant.base.files import whole
    from posequant.base.openmmlab import extract_weights

    weights, code = extract_weights(arguments.checkpoint)
    with whole(arguments.out) as draft:
        torch.save({"state_dict": weights}, draft)
    left_out = f"what would call {', '.join(code)} was left out" if code else "it holds no code"
    print(f"warning: {arguments.checkpoint}: {left_out}; {len(weights)} weights are in {arguments.out}")


if __name__ == "__main__":
    main()
