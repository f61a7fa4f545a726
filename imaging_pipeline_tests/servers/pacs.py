"""Real PACS peers on free loopback ports: Orthanc (Debian orthanc, orthanc-dicomweb) and DCMTK (dcmtk).

Tests skip, and say so, where the programs are missing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A running Orthanc.

    Attributes:
        http_port: of its REST API and of DICOMweb, on 127.0.0.1.
        dicom_port: of its SCP with the AE title ORTHANC.
    """

    http_port: int
    dicom_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}/dicom-web"

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def store(self, *paths: Path) -> list[str]:
        """Put files in; their identifiers in Orthanc."""
        return [str(self.call("POST", "/instances", path.read_bytes())["ID"]) for path in paths]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def found(program: str) -> str | None:
    """Where a program is: not among the scripts of Python's environment, where pynetdicom has namesakes of DCMTK's."""
    own = {str(Path(prefix, "bin")) for prefix in (sys.prefix, sys.exec_prefix)}
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder not in own]
    return shutil.which(program, path=os.pathsep.join(folders))


def require(*programs: str) -> None:
    """Skip the test when a program is missing."""
    if missing := [program for program in programs if found(program) is None]:
        pytest.skip(f"{', '.join(missing)} not found; apt-get install dcmtk orthanc orthanc-dicomweb")


@contextmanager
def running_orthanc(folder: Path, modalities: Mapping[str, tuple[str, int]] | None = None) -> Iterator[Orthanc]:
    """An empty Orthanc.

    Args:
        folder: for its database.
        modalities: AE titles it may send to, with host and port.
    """
    require("Orthanc")
    if not DICOMWEB_PLUGIN.is_file():
        pytest.skip("no DICOMweb plug-in of Orthanc; apt-get install orthanc-dicomweb")
    orthanc = Orthanc(free_port(), free_port())
    storage = folder / "storage"
    configuration = {
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "HttpPort": orthanc.http_port,
        "DicomPort": orthanc.dicom_port,
        "DicomAet": "ORTHANC",
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomCheckCalledAet": False,
        "UnknownSopClassAccepted": True,
        "DicomModalities": {title: [title, host, port] for title, (host, port) in (modalities or {}).items()},
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }
    storage.mkdir(parents=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration), encoding="utf-8")
    with running(["Orthanc", str(folder / "orthanc.json")], folder / "orthanc.log") as process:
        wait_for(lambda: _answers(orthanc.url), process)
        yield orthanc


@contextmanager
def running(command: Sequence[str], log: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed in the end."""
    with log.open("wb") as output:
        program = [found(command[0]) or command[0], *command[1:]]
        process = subprocess.Popen(program, stdout=output, stderr=subprocess.STDOUT, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(is_done: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something is true; fail when it takes too long or the process has ended."""
    deadline = time.monotonic() + START_SECONDS
    while not is_done():
        assert process is None or process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def dcmtk(program: str, *arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's programs to its end."""
    require(program)
    command = [found(program) or program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill it as power failure would."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/system", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
