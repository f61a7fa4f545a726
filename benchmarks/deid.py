"""De-identification: planted identifiers left and speed, beside dicognito, deid, dicom-anonymizer and gdcmanon.

Last line: one JSON object. Four corpora, the same files for every tool:

- ``planted``: objects with a list of what was planted where (headers, private blocks, free text, nested items, reports,
  pixels), each of its own invented patient. What is left is searched for by code that knows none of the tools.
- ``headers``: radiographs with small pixels, each of another patient, for speed alone. CPU time of the loop over files,
  without start-up.
- ``series``: the same, twenty images of each patient, as studies come.
- ``real``: the test files of pydicom, for dciodvfy: errors in an output that its input did not have.

The peers are run as their documentation has them, in an environment of their own; what is missing is left out, and the
output says so. They are not asked for what they do not claim: dicognito, deid and dicom-anonymizer leave pixels alone.

    DEID_PYTHON=peers/bin/python make -s bench-deid
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom

from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.corpus import keys
from imaging_pipeline_tests.deid.planted import headers, pixels, reports, texts
from imaging_pipeline_tests.deid.planted.judge import Verdict, judge
from imaging_pipeline_tests.deid.planted.patients import Patient, anyone
from imaging_pipeline_tests.deid.planted.plants import Planted
from imaging_pipeline_tests.deid.planted.search import quietly
from imaging_pipeline_tests.deid.validity import errors_of

PEERS = ("dicognito", "deid", "deid_strip", "dicom_anonymizer")
HEADER_FILES = 200
IMAGES_OF_A_SERIES = 20
MAX_REAL_BYTES = 300_000
REQUIRED = frozenset({"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"})
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

Made = Callable[[Patient], Planted]


# The corpora


def kinds() -> tuple[Made, ...]:
    """The kinds of planted objects; a corpus takes them in turn."""
    return (
        headers.radiograph, headers.numbers, headers.references,
        lambda patient: headers.private(patient, IMPLICIT), lambda patient: headers.private(patient, EXPLICIT),
        lambda patient: headers.odd_places(patient, trailing=False, padding=True),
        lambda patient: next(texts.free_text(patient, texts.STAFF_AND_PLACES, "staff")),
        lambda patient: next(texts.free_text(patient, texts.NUMBERS_AND_CONTACTS, "contacts")),
        lambda patient: next(texts.name_variants(patient)), texts.dates_in_text, texts.encoded,
        reports.report, reports.key_object, reports.presentation_state, reports.overlays, reports.waveform,
        reports.structure_set, reports.segmentation, reports.enhanced,
        lambda patient: pixels.film(patient, "name", pixels.Drawn(f"{patient.family}, {patient.given}", (8, 8))),
        pixels.ultrasound, pixels.screen_capture, pixels.one_frame_of_many,
        lambda patient: pixels.compressed(patient, pixels.COMPRESSIONS[0], has_name=True), headers.radiograph,
    )  # fmt: skip


def planted_files(folder: Path, number: int) -> dict[str, Planted]:
    makers, made = kinds(), {}
    for position in range(number):
        planted = makers[position % len(makers)](anyone(position))
        made[f"{position:05}.dcm"] = planted
        (folder / f"{position:05}.dcm").write_bytes(planted.data)
    return made


def header_files(folder: Path, images: int = 1) -> None:
    """Radiographs with small pixels, so many of each patient, that differ in what images of a series differ in."""
    for position in range(HEADER_FILES):
        patient, number = divmod(position, images)
        ds = quietly(headers.radiograph(anyone(patient)).data)
        ds.Rows = ds.Columns = 8
        ds.PixelData = bytes(128)
        if images > 1:
            ds.InstanceNumber = number + 1
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.{number + 1}"
        ds.save_as(folder / f"{position:05}.dcm")


def real_files(folder: Path) -> None:
    """Those of pydicom's files that every tool can read at all."""
    source = Path(pydicom.__file__).parent / "data"
    for position, path in enumerate(sorted(source.rglob("*.dcm"))):
        if path.stat().st_size > MAX_REAL_BYTES or path.read_bytes()[128:132] != b"DICM":
            continue
        if {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"} <= set(
            quietly(path.read_bytes()).dir()
        ):
            shutil.copyfile(path, folder / f"{position:05}.dcm")


# The tools


def ours(source: Path, target: Path, profile: str) -> dict[str, float]:
    """The engine of this package in one process; what it holds has no output."""
    engine = Deidentifier(load_profile(profile), keys())
    held, files = 0, sorted(source.iterdir())
    start = time.process_time()
    for path in files:
        try:
            made = engine.deidentify(path.read_bytes(), patient_domain="bench")
        except PoisonInput:
            held += 1
        else:
            (target / path.name).write_bytes(made.data)
    return {"cpu_s": time.process_time() - start, "files": len(files), "failed": held}


def gdcmanon(source: Path, target: Path, certificate: Path) -> dict[str, float]:
    """One process over the folder, identifiers encrypted to a certificate, as its manual has it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["gdcmanon", "-e", "--continue", "-c", str(certificate), "-i", str(source), "-o", str(target), "-r"]
    subprocess.run(command, check=False, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    files = len(list(source.iterdir()))
    return {"cpu_s": used, "files": files, "failed": files - len(list(target.iterdir()))}


def run(tool: str, source: Path, target: Path, python: str | None, certificate: Path) -> dict[str, float]:
    """One tool over a folder, in a process of its own."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if tool == "gdcmanon":
        return gdcmanon(source, target, certificate)
    if tool.startswith("ours"):
        command = [sys.executable, __file__, "--ours", tool.removeprefix("ours_")]
    else:
        command = [str(python), "-I", str(Path(__file__).with_name("deid_peers.py")), tool]
    done = subprocess.run([*command, str(source), str(target)], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def tools(python: str | None, folder: Path) -> Iterator[str]:
    """The tools that are there; what is missing is named."""
    yield from ("ours_research", "ours_basic")
    for peer in PEERS:
        module = {"deid_strip": "deid", "dicom_anonymizer": "dicomanonymizer"}.get(peer, peer)
        command = [str(python), "-c", f"import {module}"]
        if python and not subprocess.run(command, check=False, capture_output=True).returncode:
            yield peer
        else:
            print(f"{peer} is not installed and left out")
    if shutil.which("gdcmanon") and shutil.which("openssl"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench"]
        subprocess.run(
            [*command, "-keyout", "key.pem", "-out", "certificate.pem"], check=True, capture_output=True, cwd=folder
        )
        yield "gdcmanon"
    else:
        print("gdcmanon (with openssl) is not installed and left out")


# Judging


def leaks(corpus: dict[str, Planted], target: Path) -> dict[str, float]:
    """What is left in the outputs of one tool, and what was lost, over the files it wrote."""
    verdicts = {name: _judged(planted, target / name) for name, planted in corpus.items()}
    written = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    planted = sum(len(corpus[name].plants) + _marks(corpus[name]) for name in corpus)
    left = sum(len(verdict.left) + len(verdict.seen) for verdict in written.values())
    direct = sum(len(verdict.direct) + len(verdict.seen) for verdict in written.values())
    with_direct = sum(bool(verdict.direct or verdict.seen) for verdict in written.values())
    keeps = sum(len(corpus[name].keeps) for name in written)
    lost = sum(len(one.missing) + len(one.emptied) + len(one.changed) for one in written.values())
    return {
        "planted": planted, "left": left, "left_percent": 100 * left / planted, "direct_left": direct,
        "files_with_direct": with_direct, "written": len(written), "not_written": len(corpus) - len(written),
        "words_burned_in": sum(map(_marks, corpus.values())),
        "words_seen": sum(len(one.seen) for one in written.values()),
        "kept_percent": 100 * (1 - lost / max(keeps, 1)), "references_broken": _broken_references(written),
        "intervals_broken": sum(_broken_intervals(one) for one in written.values()),
        "pixels_touched": sum(one.touched for one in written.values()),
    }  # fmt: skip


def _marks(planted: Planted) -> int:
    return sum(mark.is_hidden for mark in planted.marks)


def _judged(planted: Planted, path: Path) -> Verdict | None:
    if not path.exists():
        return None
    try:
        return judge(planted, path.read_bytes())
    except Exception:  # noqa: BLE001  # an output nobody can read leaks nothing and is worth nothing
        return None


def _broken_references(written: dict[str, Verdict]) -> int:
    """UIDs that have become two, or stayed what they were."""
    mapped: dict[str, set[str]] = defaultdict(set)
    for verdict in written.values():
        for old, new in verdict.mapped.values():
            if new is not None:
                mapped[old].add(new)
    return sum(len(news) > 1 or old in news for old, news in mapped.items())


def _broken_intervals(verdict: Verdict) -> int:
    """Dates of one object that are gone, stayed, or moved otherwise than most."""
    moves = sorted(days for days in verdict.moved.values() if days is not None)
    usual = moves[len(moves) // 2] if moves else 0
    return sum(days is None or days == 0 or abs(days - usual) > 1 for days in verdict.moved.values())


def new_errors(source: Path, target: Path) -> dict[str, float]:
    written = [path for path in sorted(target.iterdir()) if (source / path.name).exists()]
    worse = [path for path in written if errors_of(path) - errors_of(source / path.name)]
    return {"real_written": len(written), "files_with_new_errors_percent": 100 * len(worse) / max(len(written), 1)}


# Measuring


def measure(arguments: argparse.Namespace, home: Path) -> dict[str, float]:
    folders = {name: home / name for name in ("planted", "headers", "series", "real")}
    for folder in folders.values():
        folder.mkdir()
    corpus = planted_files(folders["planted"], arguments.files)
    header_files(folders["headers"])
    header_files(folders["series"], IMAGES_OF_A_SERIES)
    real_files(folders["real"])
    found = list(tools(arguments.python, home))
    cpu: dict[tuple[str, str], list[float]] = defaultdict(list)
    figures: dict[str, float] = {"planted_files": len(corpus), "real_files": len(list(folders["real"].iterdir()))}
    for number in range(arguments.rounds):
        for tool in found if number % 2 == 0 else reversed(found):
            for name in ("headers", "series"):
                done = run(tool, folders[name], home / "out", arguments.python, home / "certificate.pem")
                cpu[tool, name].append(done["cpu_s"] / done["files"] * 1e6)
                figures[f"{tool}_{name}_failed"] = done["failed"]
    for tool in found:
        done = run(tool, folders["planted"], home / "out", arguments.python, home / "certificate.pem")
        figures[f"{tool}_planted_files_per_cpu_s"] = done["files"] / done["cpu_s"]
        figures |= {f"{tool}_{name}": value for name, value in leaks(corpus, home / "out").items()}
        if shutil.which("dciodvfy"):
            run(tool, folders["real"], home / "out", arguments.python, home / "certificate.pem")
            figures |= {f"{tool}_{name}": value for name, value in new_errors(folders["real"], home / "out").items()}
        figures[f"{tool}_header_us"] = statistics.median(cpu[tool, "headers"])
        figures[f"{tool}_series_us"] = statistics.median(cpu[tool, "series"])
        figures[f"{tool}_header_files_per_cpu_s"] = 1e6 / figures[f"{tool}_header_us"]
        for profile in ("research", "basic") if not tool.startswith("ours") else ():
            for name in ("headers", "series"):
                over = map(_over, cpu[tool, name], cpu[f"ours_{profile}", name])
                figures[f"{profile}_{name}_ratio_vs_{tool}"] = statistics.median(over)
        _say(tool, figures)
    return figures


def _over(theirs: float, our: float) -> float:
    return theirs / our


def _say(tool: str, figures: dict[str, float]) -> None:
    print(
        f"{tool}: {figures[f'{tool}_left']:.0f} of {figures[f'{tool}_planted']:.0f} planted left "
        f"({figures[f'{tool}_left_percent']:.2f} %), {figures[f'{tool}_direct_left']:.0f} direct in "
        f"{figures[f'{tool}_files_with_direct']:.0f} of {figures[f'{tool}_written']:.0f} files written, "
        f"{figures[f'{tool}_words_seen']:.0f} of {figures[f'{tool}_words_burned_in']:.0f} burned-in lines seen, "
        f"{figures[f'{tool}_header_files_per_cpu_s']:.0f} headers a second of CPU time, "
        f"{figures[f'{tool}_header_us'] / 1000:.1f} ms a header, {figures[f'{tool}_series_us'] / 1000:.1f} in a series"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200, help="planted objects")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the speed measurement")
    parser.add_argument("--python", default=os.environ.get("DEID_PYTHON"), help="interpreter that has the peers")
    parser.add_argument("--ours", metavar=("PROFILE", "IN", "OUT"), nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        profile, source, target = arguments.ours
        print(json.dumps(ours(Path(source), Path(target), profile)))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
