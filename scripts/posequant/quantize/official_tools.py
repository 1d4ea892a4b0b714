"""The official ncnn2table and ncnn2int8, run so that what they pass over in silence becomes an error."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.files import named_as
from posequant.quantize.table import CalibrationTable


def run_ncnn2table(
    tool: str,
    param: Path,
    bin_: Path,
    crops: Sequence[Path],
    *,
    size: tuple[int, int],
    method: str,
    threads: int,
) -> CalibrationTable:
    """Return the table that the official ncnn2table makes of exact tensors (its `type=1`).

    Args:
        tool: path or name of the binary.
        param: the network's `.param`.
        bin_: its `.bin`.
        crops: `.npy` files, each a C-order float32 tensor (3, height, width); to be checked beforehand, as the tool
            skips or misreads others.
        size: their width and height.
        method: `kl` or `aciq`. (Its `eq` crashes or reads wrong files.)
        threads: how many threads it uses.

    Raises:
        InputError: if the tool is missing or fails.
    """
    names = [str(crop.resolve()) for crop in crops]
    for name in names:
        # The tool reads up to 255 characters and stops at a blank (its parse_comma_path_list).
        if len(name) > 255 or len(name.split()) != 1:
            raise InputError(f"{name}: {tool} cannot read paths with blanks or of more than 255 characters.")
    with tempfile.TemporaryDirectory() as folder:
        names_file, table = Path(folder, "crops.txt"), Path(folder, "table")
        names_file.write_text("".join(f"{name}\n" for name in names))
        width, height = size
        settings = [f"shape=[{width},{height},3]", f"method={method}", f"thread={threads}", "type=1"]
        output = _run([tool, str(param), str(bin_), str(names_file), str(table), *settings])
        # It announces a file that it cannot open, leaves it out and ends well.
        if any("failed" in line or "exception" in line for line in output):
            raise InputError(f"{tool}: it could not read everything; its output is above.")
        if not table.is_file():
            raise InputError(f"{tool}: it ended without a table; its output is above.")
        with named_as(table, f"{tool}: its table"):
            return CalibrationTable.read(table)


def run_ncnn2int8(tool: str, param: Path, bin_: Path, table: CalibrationTable, *, out: tuple[Path, Path]) -> None:
    """Quantize a model by the official ncnn2int8, which leaves layers without lines in `table` in float.

    Args:
        tool: path or name of the binary.
        param: the network's `.param`.
        bin_: its `.bin`.
        table: the scales; to be checked beforehand.
        out: the `.param` and the `.bin` to write.

    Raises:
        InputError: if the tool is missing or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "table")
        table.write(lines)
        _run([tool, str(param), str(bin_), *map(str, out), str(lines)])


def _run(command: list[str]) -> list[str]:
    """Run a tool, pass its output on to stderr and return the lines."""
    lines = []
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout
            for line in process.stdout:
                sys.stderr.write(line)
                lines.append(line)
    except OSError as error:
        raise InputError(
            f"{command[0]}: cannot be run ({error.strerror}). Name the tool's path, or no tool."
        ) from error
    if process.returncode != 0:
        raise InputError(f"{command[0]}: it failed with status {process.returncode}; its output is above.")
    return lines
