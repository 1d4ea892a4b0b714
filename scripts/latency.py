"""Measure what a network costs to run: its latency, in turn with ONNX Runtime FP32, and its size on disk."""

import argparse
from dataclasses import asdict
from pathlib import Path

from posequant.base.errors import reports_input_errors


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model (JSON)")
    parser.add_argument("--variant", required=True, help="name of the row that is measured")
    parser.add_argument("--backend", required=True, help="pytorch, onnxruntime, openvino or ncnn")
    parser.add_argument("--precision", required=True, help="fp32, fp16, bf16 or int8")
    parser.add_argument("--artifact", type=Path, nargs="+", required=True, help="the files that the backend loads")
    parser.add_argument("--reference", type=Path, required=True, help="ONNX file of the same model to time it against")
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops to run on")
    parser.add_argument("--rounds", type=int, default=100, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=20, help="time after which no further round starts (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="record to write (JSON)")
    return parser.parse_args()


@reports_input_errors
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.base.timing import cpu_name
    from posequant.benchmark.latency import measure_latency
    from posequant.data.crop_files import load_crops
    from posequant.networks.opening import open_network

    spec = ModelSpec.load(arguments.model)
    network = open_network(arguments.backend, arguments.precision, arguments.artifact, spec)
    reference = open_network("onnxruntime", "fp32", [arguments.reference], spec)
    latency = measure_latency(
        network, reference, load_crops(arguments.crops, limit=32), arguments.rounds, arguments.seconds
    )
    write_json(
        arguments.out,
        {
            "model": spec.name,
            "variant": arguments.variant,
            "latency": asdict(latency),
            "cpu": cpu_name(),
            "size_bytes": sum(path.stat().st_size for path in arguments.artifact),
        },
    )


if __name__ == "__main__":
    main()
