import gc
import mmap
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posequant.base.errors import InputError
from posequant.benchmark.load import measure_load

MEGABYTE = 1_000_000


def allocating(size: int, seconds: float = 0.0) -> Callable[[], Callable[[], object]]:
    """Opens what touches `size` bytes and takes at least `seconds`."""

    def first_inference() -> Callable[[], object]:
        memory = bytearray(size)
        for start in range(0, size, 4096):
            memory[start] = 1
        time.sleep(seconds)
        return lambda: memory[0]

    return first_inference


def test_memory_is_what_opening_adds() -> None:
    small, large = (measure_load(allocating(size * MEGABYTE), "row").memory_mb for size in (10, 110))
    assert large - small == pytest.approx(100, abs=20)
    assert large >= 110


def test_memory_that_was_there_before_is_not_counted() -> None:
    before = bytearray(200 * MEGABYTE)
    for start in range(0, len(before), 4096):
        before[start] = 1
    assert measure_load(allocating(10 * MEGABYTE), "row").memory_mb < 100


def test_memory_that_was_freed_before_is_not_taken_unseen() -> None:
    pieces = [bytes(50_000) for _ in range(1000)]
    keep = pieces[-1]  # or the heap would shrink
    del pieces

    def first_inference() -> Callable[[], object]:
        again = [bytes(50_000) for _ in range(800)]
        return lambda: (again, keep)

    assert measure_load(first_inference, "row").memory_mb >= 35


def test_garbage_that_was_there_before_is_not_set_off() -> None:
    gc.collect()
    for _ in range(4):
        circle: list[object] = [bytearray(b"1") * (20 * MEGABYTE)]
        circle.append(circle)

    def first_inference() -> Callable[[], object]:
        gc.collect()
        return allocating(50 * MEGABYTE)()

    assert measure_load(first_inference, "row").memory_mb >= 50


def test_pages_of_files_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(50 * MEGABYTE))

    def first_inference() -> Callable[[], object]:
        with (tmp_path / "weights").open("rb") as file:
            weights = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return lambda: sum(weights[start] for start in range(0, len(weights), 4096))

    assert measure_load(first_inference, "row").memory_mb < 10


def test_a_peak_counts_that_is_over(tmp_path: Path) -> None:
    def first_inference() -> Callable[[], object]:
        allocating(110 * MEGABYTE)()
        return int

    assert measure_load(first_inference, "row").memory_mb >= 100


def test_time_is_that_until_the_first_output() -> None:
    assert measure_load(allocating(4096, seconds=0.02), "row").load_ms >= 20


def test_each_measurement_is_in_a_process_of_its_own() -> None:
    seen: list[int] = []
    measure_load(lambda: lambda: seen.append(os.getpid()), "row")
    assert seen == []


def test_crash_names_the_row() -> None:
    def crash() -> Callable[[], object]:
        os.kill(os.getpid(), signal.SIGSEGV)
        return int

    with pytest.raises(InputError, match=r"ncnn-int8: its runtime crashed \(SIGSEGV\)"):
        measure_load(crash, "ncnn-int8")


def test_error_of_the_network_is_passed_on() -> None:
    def refuse() -> Callable[[], object]:
        raise InputError("net.param: damaged")

    with pytest.raises(InputError, match=r"^net\.param: damaged$"):
        measure_load(refuse, "row")


def test_other_errors_name_the_row() -> None:
    def fail() -> Callable[[], object]:
        raise RuntimeError("no such operator")

    with pytest.raises(InputError, match="row: cannot be opened: RuntimeError"):
        measure_load(fail, "row")


def test_memory_that_is_given_back_at_the_beginning_is_no_peak() -> None:
    pieces = [bytes(50_000) for _ in range(1000)]
    keep = pieces[-1]  # or the heap would shrink
    del pieces
    assert measure_load(allocating(10 * MEGABYTE), "row").memory_mb < 20
    assert keep
