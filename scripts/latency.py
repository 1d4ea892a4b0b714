"""Measure what the networks of a model cost to run: their latencies, timed in turn, and their sizes on disk."""

import argparse
from dataclasses import asdict
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    parser.add_argument(
        "--row",
        dest="rows",
        action="append",
        nargs="+",
        required=True,
        metavar="WORD",
        help="a network, once for each: its name, its backend (pytorch, onnxruntime, openvino, ncnn), its precision "
        "(fp32, fp16, bf16, int8), the files that the backend loads, and, if there is one, the record of their maker",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="ONNX file of the same model to time them against"
    )
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops to run on")
    parser.add_argument("--rounds", type=int, default=60, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="time for each network, after which no further round starts (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="record to write (JSON)")
    return parser.parse_args()


def parse_rows(rows: list[list[str]]) -> dict[str, tuple[str, str, list[Path]]]:
    """Return the backend, precision and files of each row, by its name."""
    parsed: dict[str, tuple[str, str, list[Path]]] = {}
    for words in rows:
        if len(words) < 4:
            raise InputError(f"--row {' '.join(words)}: give a name, a backend, a precision and at least one file")
        name, backend, precision, *files = words
        if name in parsed:
            raise InputError(f"--row {name}: there are two rows of this name; give each once")
        parsed[name] = backend, precision, [Path(file) for file in files]
    return parsed


@command
def main() -> None:
    """Run the command."""
    arguments = parse_arguments()
    from posequant import __version__
    from posequant.base.files import write_json
    from posequant.base.model_spec import ModelSpec
    from posequant.base.timing import cpu_name
    from posequant.base.verify import as_made
    from posequant.benchmark.latency import measure_latencies
    from posequant.data.crop_files import load_crops
    from posequant.networks.opening import open_network

    spec = ModelSpec.load(arguments.model)
    parsed = parse_rows(arguments.rows)
    made = {name: as_made(files) for name, (_, _, files) in parsed.items()}
    rows = {name: (backend, precision, list(made[name])) for name, (backend, precision, _) in parsed.items()}
    networks = {name: open_network(*row, spec) for name, row in rows.items()}
    of_reference = ("onnxruntime", "fp32", [arguments.reference])
    same = [name for name, row in rows.items() if row == of_reference]
    rounds, latencies = measure_latencies(
        list(networks.values()),
        networks[same[0]] if same else open_network(*of_reference, spec),
        load_crops(arguments.crops, limit=32),
        rounds=arguments.rounds,
        seconds=arguments.seconds,
    )
    costs = {
        name: {
            "latency": asdict(latency),
            "size_bytes": sum(path.stat().st_size for path in files),
            "sha256": {path.name: digest for path, digest in files.items()},
        }
        for (name, files), latency in zip(made.items(), latencies, strict=True)
    }
    record = {"posequant": __version__, "model": spec.name, "cpu": cpu_name(), "rounds": rounds, "rows": costs}
    write_json(arguments.out, record)


if __name__ == "__main__":
    main()
