"""Measure what the networks of a model cost to run, timed in turn: latency, throughput, memory, and size on disk."""

import argparse
import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from posequant.base.command import command
from posequant.base.errors import InputError
from posequant.base.options import add_rows_option
from posequant.workflow.settings.precisions import PRECISIONS, add_device_option


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="description of the model, model.json")
    words = f"its name, its backend ({', '.join(PRECISIONS)}), its precision (fp32, fp16, bf16, int8)"
    add_rows_option(parser, f"{words}, the files that the backend loads")
    add_device_option(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="the same model in FP32, to time them against: its ONNX file, or ncnn's .param and .bin",
    )
    parser.add_argument("--crops", type=Path, required=True, help="folder of crops to run on")
    parser.add_argument("--rounds", type=int, default=60, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="time for each network, after which no further round starts (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="how many threads the throughput is measured with (default: %(default)s)"
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
    from posequant.base.processor import this_processor
    from posequant.base.verify import as_made
    from posequant.benchmark.latency import measure_latencies
    from posequant.benchmark.load import measure_load, opener
    from posequant.benchmark.throughput import network_throughputs
    from posequant.data.crop_files import load_crops
    from posequant.networks.opening import device_record, import_runtime, open_network
    from posequant.workflow.settings.precisions import TITLES

    spec, crops, threads = ModelSpec.load(arguments.model), load_crops(arguments.crops, limit=32), arguments.threads
    device = arguments.vulkan_device
    parsed = parse_rows(arguments.rows)
    made = {name: as_made(files) for name, (_, _, files) in parsed.items()}
    rows = {name: (backend, precision, list(made[name])) for name, (backend, precision, _) in parsed.items()}
    for backend in dict.fromkeys(backend for backend, _, _ in rows.values()):
        import_runtime(backend)
    # In processes of their own, while nothing is open in this one.
    loads = {name: measure_load(opener(*row, spec, crops[:1], device=device), name) for name, row in rows.items()}
    networks = {name: open_network(*row, spec, threads, device=device) for name, row in rows.items()}
    in_ncnn = arguments.reference[0].suffix == ".param"
    of_reference = ("ncnn" if in_ncnn else "onnxruntime", "fp32", arguments.reference)
    same = [name for name, row in rows.items() if row == of_reference]
    full: dict[str, int] = {}
    for place, (backend, precision, _) in enumerate(rows.values()):
        if precision == "fp32":
            # The first, as in a certificate.
            full.setdefault(backend, place)
    rounds, latencies = measure_latencies(
        list(networks.values()),
        networks[same[0]] if same else open_network(*of_reference, spec),
        crops,
        fp32=[full.get(backend) for backend, _, _ in rows.values()],
        rounds=arguments.rounds,
        seconds=arguments.seconds,
    )
    per_second = network_throughputs(
        list(networks.values()), [latency.median_ms / 1000 for latency in latencies], crops, threads
    )
    costs = {
        name: {
            "latency": asdict(latency),
            "throughput": {"per_second": speed, "threads": threads},
            **asdict(loads[name]),
            "size_bytes": sum(path.stat().st_size for path in files),
            "sha256": {path.name: digest for path, digest in files.items()},
            **({"device": found} if (found := device_record(networks[name])) else {}),
        }
        for (name, files), latency, speed in zip(made.items(), latencies, per_second, strict=True)
    }
    record = {
        "posequant": __version__,
        "model": spec.name,
        # Figures of two runs are not compared: this tells them apart.
        "run": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{secrets.token_hex(3)}",
        "cpu": asdict(this_processor()),
        "rounds": rounds,
        "reference": f"{TITLES[of_reference[0]]} FP32",
        "rows": costs,
    }
    write_json(arguments.out, record)


if __name__ == "__main__":
    main()
