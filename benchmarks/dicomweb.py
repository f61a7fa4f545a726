"""DICOMweb against Orthanc: the same studies, the same client, one run. Last line: one JSON object of its figures.

Both servers hold a CT series and many small studies. In each round each of them answers in turn: QIDO searches, the
metadata of the series, single frames for 1, 8 and 32 clients, and a STOW of new objects. curl is the client: its
connections are kept, and it takes little of the machine. Besides answers a second (wall time, which other work on the
machine spoils) the server's CPU time for an answer is measured, which it spoils less.

Orthanc comes with ``apt-get install orthanc orthanc-dicomweb``; without it there is nothing to compare, and the
benchmark says so.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from dicomweb_corpus import EDGE, SERIES, STUDY, copy_in_lake, copy_in_orthanc, ct_slice, without_copy, write_corpus

from imaging_pipeline.catalog.bronze import load_bronze
from imaging_pipeline.defs.workspace import Workspace
from imaging_pipeline.metadata.silver import VersionPolicy, load_silver
from imaging_pipeline.objects.folder import Folder
from imaging_pipeline.settings import Settings
from imaging_pipeline.sources import SourceConfig
from imaging_pipeline.web.access.gate import open_access
from imaging_pipeline.web.access.roles import Role

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 900.0
CLIENTS = (1, 8, 32)
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Server:
    """A DICOMweb server under measurement.

    Attributes:
        name: ``ours`` or ``orthanc``.
        root: address of its DICOMweb service.
        process: it.
        token: for the header Authorization, or empty.
    """

    name: str
    root: str
    process: subprocess.Popen[bytes]
    token: str = ""

    def cpu_seconds(self) -> float:
        """CPU time of its process so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@dataclass(frozen=True, slots=True)
class Cost:
    """What some answers cost: seconds of wall time and of the server's CPU time for one."""

    wall: float
    cpu: float


# The servers


@contextmanager
def ours(home: Path, corpus: Path, options: argparse.Namespace) -> Iterator[Server]:
    """Our service of the clinical zone, its lake loaded with the corpus."""
    environment = {
        "IMAGING_PIPELINE_HOME": str(home),
        "IMAGING_PIPELINE_LANDING": str(home / "landing"),
        "IMAGING_PIPELINE_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
    settings = Settings.from_environment(environment)
    workspace = Workspace(settings)
    source = Folder(SourceConfig("bench", str(corpus), minimum_age_seconds=0.0))
    manifest = [each for page in source.pages(None, datetime.now(UTC)) for each in page.objects]
    with workspace.identified() as lake:
        for number, start in enumerate(range(0, len(manifest), settings.batch_objects), start=1):
            batch, part = f"2026-01-01.{number:05}", manifest[start : start + settings.batch_objects]
            load_bronze(lake, batch, part, workspace.reader(), run_id="bench", workers=2)
            load_silver(lake, batch, VersionPolicy.KEEP_LAST)
        if options.copies:
            copy_in_lake(lake, options.studies, options.copies)
    accounts = open_access(settings, "clinical").accounts
    accounts.add_user("bench", {Role.CLINICAL, Role.ANNOTATOR})
    token = accounts.create_token("bench").text
    port = free_port()
    program = Path(sys.executable).with_name("imaging-pipeline")
    command = [str(program), "serve", "--zone", "clinical", "--port", str(port)]
    with running(command, home / "serve.log", {**os.environ, **environment}) as process:
        wait_for(port, process)
        yield Server("ours", f"http://127.0.0.1:{port}/dicom-web", process, token)


@contextmanager
def orthanc(folder: Path, corpus: Path, options: argparse.Namespace) -> Iterator[Server]:
    """Orthanc with the corpus, as it is configured for many readers: kept connections, full metadata."""
    folder.mkdir()
    port = free_port()
    configuration = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": port, "DicomPort": free_port(),
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "KeepAlive": True, "HttpThreadsCount": 50,
        "Plugins": [str(PLUGIN)], "LimitFindResults": 0, "LimitFindInstances": 0,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
    }  # fmt: skip
    path = folder / "orthanc.json"
    command = ["Orthanc", str(path)]
    path.write_text(json.dumps(configuration | {"SyncStorageArea": False}), "utf-8")  # it is filled faster so
    with running(command, folder / "filled.log", dict(os.environ)) as process:
        wait_for(port, process)
        for part in sorted(corpus.iterdir()):
            archive = BytesIO()
            with zipfile.ZipFile(archive, "w") as target:
                for each in sorted(part.iterdir()):
                    target.write(each, each.name)
            request = urllib.request.Request(f"http://127.0.0.1:{port}/instances", archive.getvalue(), method="POST")
            urllib.request.urlopen(request, timeout=600).close()
        process.terminate()  # it writes its index
        process.wait(timeout=60)
    if options.copies:
        copy_in_orthanc(folder / "index", options.studies, options.copies)
    path.write_text(json.dumps(configuration), "utf-8")
    with running(command, folder / "orthanc.log", dict(os.environ)) as process:
        wait_for(port, process)
        yield Server("orthanc", f"http://127.0.0.1:{port}/dicom-web", process)


@contextmanager
def running(command: Sequence[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed in the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("a server does not start: look at its log")


# The client


def fetch(server: Server, paths: Sequence[str], clients: int, accept: str, folder: Path) -> Cost:
    """Fetch addresses with some connections at once; what one answer costs.

    Raises:
        SystemExit: one of them is no success.
    """
    lines = ["silent", "fail", "show-error", f'header = "Accept: {accept}"']
    if server.token:
        lines.append(f'header = "Authorization: Bearer {server.token}"')
    for path in paths:
        lines += [f'url = "{server.root}{path}"', 'output = "/dev/null"']
    config = folder / "curl.conf"
    config.write_text("\n".join(lines), "utf-8")
    parallel = ["--parallel", "--parallel-immediate", "--parallel-max", str(clients)] if clients > 1 else []
    return timed(server, ["curl", *parallel, "--config", str(config)], len(paths))


def timed(server: Server, command: Sequence[str], answers: int) -> Cost:
    """What one of some answers costs."""
    cpu, start = server.cpu_seconds(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{server.name} refused: {done.stderr[:300]}")
    return Cost(wall / answers, (server.cpu_seconds() - cpu) / answers)


# What is measured. Each takes a server and a scratch folder, and gives what one answer costs.


def metadata(server: Server, folder: Path) -> Cost:
    """The metadata of the whole series."""
    path = f"/studies/{STUDY}/series/{SERIES}/metadata"
    return fetch(server, [path] * 3, 1, "application/dicom+json", folder)


def frames(server: Server, folder: Path, clients: int, slices: int, requests: int) -> Cost:
    """Frames of the series, one each, as they are stored."""
    chance = random.Random(clients)
    numbers = [chance.randrange(slices) + 1 for _ in range(requests)]
    paths = [f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.{number}/frames/1" for number in numbers]
    accept = 'multipart/related; type=\\"application/octet-stream\\"; transfer-syntax=*'
    return fetch(server, paths, clients, accept, folder)


def questions(studies: int) -> list[str]:
    """QIDO: by accession number, by part of a name with a span of dates, by patient; the first 50 of all."""
    chance = random.Random(7)
    paths = []
    for _ in range(10):
        study = chance.randrange(max(studies, 1))
        paths += [
            f"/studies?AccessionNumber=A{study:07}",
            f"/studies?PatientName=Name{study % 331:04}*&StudyDate=20000101-20121231&limit=50",
            f"/studies?PatientID=P{study % 997:05}&includefield=StudyDescription",
            "/studies?limit=50",
        ]
    return paths


def searches(server: Server, folder: Path, studies: int) -> Cost:
    """All questions, one after the other."""
    return fetch(server, questions(studies), 1, "application/dicom+json", folder)


def check_answers(servers: Sequence[Server], studies: int) -> int:
    """Whether both answer the same; how many studies they find.

    Raises:
        SystemExit: they do not.
    """
    count = 0
    for path in questions(studies):
        first, second = (found_studies(server, path) for server in servers)
        if first != second if "limit=" not in path else len(first) != len(second):
            raise SystemExit(f"{path}: {first[:3]} of {len(first)}, and {second[:3]} of {len(second)}")
        count += len(first)
    return count


def found_studies(server: Server, path: str) -> list[str]:
    """The studies that answer a question, each copy as what it is a copy of: Orthanc reads the UID in its file."""
    headers = {"Accept": "application/dicom+json"}
    headers |= {"Authorization": f"Bearer {server.token}"} if server.token else {}
    with urllib.request.urlopen(urllib.request.Request(server.root + path, headers=headers), timeout=600) as answer:
        return sorted(without_copy(study["0020000D"]["Value"][0]) for study in json.loads(answer.read() or b"[]"))


def stow(server: Server, folder: Path, objects: int, round_number: int) -> Cost:
    """A STOW of new CT slices in one request."""
    chance, boundary = np.random.default_rng(100 + round_number), "bench"
    body = folder / "stow.bin"
    with body.open("wb") as target:
        for number in range(objects):
            data = ct_slice(10_000 * (round_number + 1) + number, chance)
            target.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n")
        target.write(f"--{boundary}--\r\n".encode())
    kind = f'Content-Type: multipart/related; type="application/dicom"; boundary={boundary}'
    command = ["curl", "--silent", "--fail", "--show-error", "--output", "/dev/null", "--header", kind]
    command += ["--header", "Accept: application/dicom+json", "--header", "Expect:", "--data-binary", f"@{body}"]
    command += ["--header", f"Authorization: Bearer {server.token}"] if server.token else []
    return timed(server, [*command, f"{server.root}/studies"], 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300, help="of the CT series (default: 300)")
    parser.add_argument("--studies", type=int, default=2_000, help="small studies to search (default: 2000)")
    parser.add_argument("--objects", type=int, default=1, help="of each small study (default: 1)")
    parser.add_argument(
        "--copies", type=int, default=0, help="of each small study, in the index alone; 49 make a million (default: 0)"
    )
    parser.add_argument("--requests", type=int, default=400, help="frames of one round (default: 400)")
    parser.add_argument("--stow", type=int, default=40, help="objects of one STOW, 0.5 MB each (default: 40)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    if shutil.which("Orthanc") is None or not PLUGIN.is_file() or shutil.which("curl") is None:
        raise SystemExit("Orthanc with its DICOMweb plug-in and curl are needed: apt-get install orthanc-dicomweb curl")
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-dicomweb-")))
        write_corpus(folder / "corpus", options.slices, options.studies, options.objects)
        servers = [
            held.enter_context(ours(folder / "home", folder / "corpus", options)),
            held.enter_context(orthanc(folder / "orthanc", folder / "corpus", options)),
        ]
        figures = measure(servers, folder, options)
    print(json.dumps(figures))


def measure(servers: Sequence[Server], folder: Path, options: argparse.Namespace) -> Figures:
    """Figures of both servers: medians of the rounds, in which they answer in turn."""
    parts: dict[str, Callable[[Server, int], Cost]] = {
        "qido": lambda server, _round: searches(server, folder, studies),
        "metadata": lambda server, _round: metadata(server, folder),
        **{
            f"frame_{clients}_clients": lambda server, _round, clients=clients: frames(
                server, folder, clients, options.slices, options.requests
            )
            for clients in CLIENTS
        },
        "stow": lambda server, number: stow(server, folder, options.stow, number),
    }
    studies = options.studies * (1 + options.copies)
    instances = options.slices + studies * options.objects
    figures: Figures = {"slices": options.slices, "studies": studies, "instances": instances}
    figures["studies_found"] = check_answers(servers, studies)
    for name, part in parts.items():
        costs: dict[str, list[Cost]] = {server.name: [] for server in servers}
        for number in range(-1, options.rounds):  # the first round warms both up
            for server in servers if number % 2 else servers[::-1]:
                cost = part(server, number)
                if number >= 0:
                    costs[server.name].append(cost)
        figures |= summary(name, costs, options)
        print(f"{name}: {json.dumps(summary(name, costs, options))}", flush=True)
    return figures


def summary(name: str, costs: dict[str, list[Cost]], options: argparse.Namespace) -> Figures:
    """Rates of both, and how often ours is Orthanc's (above 1 we are ahead)."""
    scale = options.stow * EDGE * EDGE * 2 / 1e6 if name == "stow" else 1.0
    unit = "mb_s" if name == "stow" else "per_s"
    wall = {server: statistics.median(cost.wall for cost in each) for server, each in costs.items()}
    cpu = {server: statistics.median(cost.cpu for cost in each) for server, each in costs.items()}
    rates = {f"{name}_{unit}_{server}": round(scale / seconds, 2) for server, seconds in wall.items()}
    times = {f"{name}_cpu_ms_{server}": round(1e3 * seconds, 2) for server, seconds in cpu.items()}
    ratios = {
        f"ratio_vs_orthanc_{name}": round(wall["orthanc"] / wall["ours"], 2),
        f"cpu_ratio_vs_orthanc_{name}": round(cpu["orthanc"] / max(cpu["ours"], 1e-4), 2),
    }
    return {**rates, **times, **ratios}


if __name__ == "__main__":
    main()
