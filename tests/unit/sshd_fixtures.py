"""A real sshd on the loopback address, an ordinary process with keys and settings of its own: a device for tests."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from posequant.workflow.settings.devices import Device

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh")), reason="there is no sshd here: apt install openssh-server openssh-client"
)
HOST = "board"


@dataclass(frozen=True)
class Sshd:
    """A device: its server, and the files by which it is reached."""

    folder: Path
    server: subprocess.Popen[bytes]

    @property
    def place(self) -> Path:
        """What is PoseQuant's on the device."""
        return self.folder / "there" / "posequant"

    def settings(self, **changes: Any) -> Device:
        """Return the device's settings: it has this Python, so that nothing is installed."""
        told = {
            "ssh": HOST,
            "ssh_options": ["-F", str(self.folder / "ssh_config")],
            "python": sys.executable,
            "folder": str(self.place),
            "threads": 2,
            "rounds": 10,
            "cool": 0.0,
        }
        return Device(**{key: value for key, value in {**told, **changes}.items() if value is not None})

    def break_connections(self) -> int:
        """Kill the server's processes of all connections, and return how many there were."""
        children = psutil.Process(self.server.pid).children(recursive=True)
        serving = [child for child in children if child.name().startswith("sshd")]
        for child in serving:
            child.kill()
        return len(serving)


@contextmanager
def sshd(folder: Path, environment: Mapping[str, str] | None = None, first: str = ":") -> Iterator[Sshd]:
    """Start a device in a folder.

    Args:
        folder: a new one, for its keys and settings, and `there` for what it stores.
        environment: variables that programs have there.
        first: what the shell does there before each command, as `ulimit -f 100`.
    """
    (folder / "there" / "tmp").mkdir(parents=True)
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"TMPDIR": folder / "there" / "tmp", "OMP_NUM_THREADS": 1, **(environment or {})}
    told = " ".join(f"{name}={value}" for name, value in variables.items())
    said = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        # After the start-up files of the user who runs the tests.
        "ForceCommand": f'{first}; exec /usr/bin/env {told} /bin/sh -c "$SSH_ORIGINAL_COMMAND"',
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in said.items()))
    of_host = {
        "HostName": "127.0.0.1",
        "Port": port,
        "IdentityFile": folder / "user_key",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": folder / "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
    }
    lines = [f"Host {HOST}\n", *(f"  {key} {value}\n" for key, value in of_host.items())]
    (folder / "ssh_config").write_text("".join(lines))
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where the server of root leaves its rights
    with (folder / "sshd.log").open("wb") as log:
        command = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    device = Sshd(folder, server)
    try:
        _wait_until_it_listens(port, server)
        _require_that_it_lets_in(folder)
        yield device
    finally:
        device.break_connections()
        server.terminate()
        server.wait()


def _require_that_it_lets_in(folder: Path) -> None:
    """Skip the test where the account of its user is locked, as root's may be: sshd lets such a user in by no key."""
    command = ["ssh", "-F", str(folder / "ssh_config"), "-o", "BatchMode=yes", HOST, "true"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if "account is locked" in (folder / "sshd.log").read_text():
        pytest.skip("the account that runs the tests is locked, so sshd does not let it in")
    assert done.returncode == 0, done.stderr


def _wait_until_it_listens(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, "sshd ended"
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")
