"""An emulated core in place of a device: it runs what a device would, and no times are measured."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from posequant.base.files import whole
from posequant.devices.emulation import Emulation
from posequant.devices.ssh import Job


def emulate_jobs(emulation: Emulation, core: str, jobs: Mapping[str, Job], target: Path, threads: int) -> None:
    """Have jobs done, one after the other, and write the results into a folder, as `ssh.measure_jobs` does.

    Args:
        emulation: what `make arm` set up.
        core: as qemu names it.
        jobs: by the names of their models.
        target: the folder to write, with `MODEL.zip` for each. On the way, pieces are in the folder `.TARGET.pieces`,
            from which it goes on after an interruption.
        threads: how many cores of this machine work.

    Raises:
        InputError: the emulated program fails.
    """
    pieces, done = target.with_name(f".{target.name}.pieces"), {}
    for model, job in jobs.items():
        done[model] = pieces / job.name([core, *emulation.identity]) / "result.zip"
        if done[model].is_file():
            continue
        done[model].parent.mkdir(parents=True, exist_ok=True)
        with ZipFile(job.networks) as archive, np.load(job.people) as people:
            rows, count = len(json.loads(archive.read("networks.json"))["rows"]), len(people["crops"])
        files: list[str | Path] = ["--package", job.networks, "--people", job.people, "--threads", str(threads)]
        emulation.run_job(core, files, done[model], people=count, total=rows * count)
    with whole(target) as draft:
        draft.mkdir()
        for model, result in done.items():
            shutil.copyfile(result, draft / f"{model}.zip")
    shutil.rmtree(pieces)
