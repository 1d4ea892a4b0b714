"""Starts a Slurm of one node on this machine, and stops it.

It needs root, and Debian's packages slurm-wlm and munge, which `start` installs where they are missing. Its
configuration lies in Slurm's default place, since Snakemake's executor hands no other place on to its jobs. One that
is there already is left alone, and nothing is started.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# A Slurm of one node for the tests of PoseQuant."
CORES = 2
MEMORY_MB = 16000
DAEMONS = ("slurmd", "slurmctld", "munged")
SECONDS = 60


class UnavailableError(Exception):
    """Slurm cannot be started here. The message says why."""


def configuration(folder: Path) -> str:
    """Return slurm.conf. Its jobs are counted and killed by the memory that they use, without control groups."""
    host = socket.gethostname().partition(".")[0]
    return f"""{MARK}
ClusterName=posequant
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,bf_interval=2
ReturnToService=2
KillWait=2
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={CORES} RealMemory={MEMORY_MB} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=24:00:00 State=UP
"""


def start(folder: Path) -> None:
    """Start munged, slurmctld and slurmd and wait until the node is idle. Their state and logs lie in `folder`."""
    if os.geteuid() != 0:
        raise UnavailableError("A Slurm of one's own is started as root; this is not root.")
    install()
    if CONFIGURATION.exists():
        if MARK not in CONFIGURATION.read_text():
            raise UnavailableError(f"{CONFIGURATION} belongs to a Slurm that is not the tests'.")
        stop()  # of tests that were killed
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    CONFIGURATION.write_text(configuration(folder))
    shutil.rmtree("/run/munge", ignore_errors=True)
    _run("install", "-d", "-o", "munge", "-g", "munge", "-m", "755", "/run/munge")
    _run("runuser", "-u", "munge", "--", "munged", "--pid-file=/run/munge/munged.pid")
    _run("slurmctld")
    _run("slurmd")
    deadline = time.monotonic() + SECONDS
    while _said("sinfo", "--noheader", "--format", "%T") != "idle":
        if time.monotonic() > deadline:
            logs = "".join(path.read_text() for path in folder.glob("*.log"))
            raise UnavailableError(f"The node is not idle after {SECONDS} s.\n{logs}")
        time.sleep(0.2)


def stop() -> None:
    """Stop what `start` started, and take the configuration away."""
    _said("scancel", "--me")
    # In this order: the controller would miss its node.
    for daemon in DAEMONS:
        _said("pkill", "--exact", daemon)
        deadline = time.monotonic() + SECONDS
        while _said("pgrep", "--exact", daemon) and time.monotonic() < deadline:
            time.sleep(0.1)
    if CONFIGURATION.exists() and MARK in CONFIGURATION.read_text():
        CONFIGURATION.unlink()


def install() -> None:
    """Install Debian's packages where the programs are missing."""
    if all(shutil.which(program) for program in (*DAEMONS, "sbatch")):
        return
    if not shutil.which("apt-get"):
        raise UnavailableError("Install Slurm and munge: their programs are not on PATH, and apt-get is not there.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]
    for command in (["apt-get", "update"], packages):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    stop()  # what the packages have started


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
