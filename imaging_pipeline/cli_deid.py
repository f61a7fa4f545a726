"""The commands below ``imaging-pipeline deid``: run, explain, review, decide, reveal.

Reads arguments and prints. ``run`` prints counts and reasons and names no object; ``review`` and ``reveal`` show
originals on the screen of the person who holds the key and asks for them.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging_pipeline.errors import ConfigurationError
from imaging_pipeline.settings import Settings

if TYPE_CHECKING:
    from imaging_pipeline.deid.evidence import Evidence
    from imaging_pipeline.deid.inputs import Item
    from imaging_pipeline.deid.pixels import Box
    from imaging_pipeline.deid.profile import Profile
    from imaging_pipeline.deid.pseudonyms import ProjectKeys
    from imaging_pipeline.deid.vault import Vault

ALL_RELEASED, SOMETHING_HELD = 0, 1

NO_VAULT = "none"
"""Given for a vault: keep no crosswalk."""


Advance = Callable[[int, int], None]
"""Moves a bar on: by so many steps, of so many in all."""

Bars = Callable[[], AbstractContextManager[Callable[[str], Advance]]]
"""Opens progress bars; inside, a bar is made by the name of its step."""


def add_deid(commands: Any, bars: Bars) -> None:
    """Add ``deid`` and what is below it to the commands of the program."""
    deid = commands.add_parser("deid", help="de-identify folders, without a lake; look at what is held and why")
    below = deid.add_subparsers(required=True, metavar="COMMAND")

    run = below.add_parser("run", help="release what may be released of IN into the folder OUT, with evidence")
    run.add_argument("input", metavar="IN", help="folder, zip archive, file, DICOMDIR, manifest or s3://bucket/prefix")
    run.add_argument("out", metavar="OUT", type=Path, help="a folder that is new, empty, or holds an earlier release")
    run.add_argument("--workers", type=int, default=None, help="processes (default: as configured)")
    run.add_argument(
        "--vault", default=None, metavar="FILE", help=f"where originals are kept, encrypted; '{NO_VAULT}': nowhere"
    )
    _add_profile(run)
    _add_keys(run)
    run.set_defaults(run=lambda options, settings: _run(options, settings, bars))

    explain = below.add_parser("explain", help="what a profile does with an attribute or a file, and why")
    explain.add_argument("what", metavar="TAG|FILE", help="00100010, PatientName, or a DICOM file")
    explain.add_argument("--sop-class", default="", metavar="UID", help="of the objects asked about")
    explain.add_argument("--manufacturer", default="", help="of the objects asked about")
    _add_profile(explain)
    explain.set_defaults(run=_explain)

    review = below.add_parser("review", help="show where the objects are that a run has held, and why")
    _add_places(review)
    review.add_argument("--reason", default=None, help="those with this reason alone")
    _add_keys(review)
    review.set_defaults(run=_review)

    decide = below.add_parser(
        "decide", help="decide about an object that was held for its pixels, or all of its device"
    )
    _add_places(decide)
    decide.add_argument("object", metavar="OBJECT", help="its name in the evidence")
    decide.add_argument("decision", choices=("RELEASE", "HOLD", "BLANK"))
    decide.add_argument("--box", action="append", default=[], metavar="LEFT,TOP,RIGHT,BOTTOM", help="what BLANK blanks")
    decide.add_argument("--device", action="store_true", help="for all images of this device, class and size")
    decide.add_argument("--by", default="", help="who decides")
    decide.add_argument("--why", default="", help="for the record")
    _add_keys(decide)
    decide.set_defaults(run=_decide)

    reveal = below.add_parser("reveal", help="the original of a patient's or accession number's pseudonym, or a UID")
    reveal.add_argument("pseudonym")
    reveal.add_argument("--vault", default=None, metavar="FILE", help="the vault of the run")
    _add_keys(reveal)
    reveal.set_defaults(run=_reveal)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="what the run was given")
    parser.add_argument("out", metavar="OUT", type=Path, help="what the run has made")


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default=None, help="basic, research, limited, or a YAML file")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--project", default=None, help="each project has pseudonyms of its own")
    parser.add_argument("--key-file", type=Path, default=None, metavar="FILE", help="the master key (mode 0600)")
    parser.add_argument("--epoch", type=int, default=None, help="one more after each change of the project's keys")
    parser.add_argument("--source", default=None, help="patient domain of the objects (default: the configured one)")
    parser.add_argument("--decisions", type=Path, default=None, metavar="FILE", help="what people decided about pixels")


@dataclass(frozen=True, slots=True)
class _Setup:
    """What all commands need: the keys, who gave Patient IDs their meaning, and where the crosswalk is."""

    keys: ProjectKeys
    source: str
    vault_path: Path


def _setup(options: argparse.Namespace, settings: Settings) -> _Setup:
    from imaging_pipeline.deid.pseudonyms import ProjectKeys  # noqa: PLC0415 - only this command pays for it

    if options.key_file:
        settings = settings.with_key_file(options.key_file)
    project = settings.project if options.project is None else options.project
    epoch = settings.key_epoch if options.epoch is None else options.epoch
    keys = ProjectKeys.derive(settings.master_key(), project, epoch)
    is_configured = (project, epoch) == (settings.project, settings.key_epoch) and not options.key_file
    path = settings.vault_path if is_configured else settings.vault_path.with_name(f"vault-{keys.key_id}.sqlite")
    return _Setup(keys, options.source or settings.source_name, path)


def _vault(named: str | None, setup: _Setup) -> Vault | None:
    from imaging_pipeline.deid.vault import Vault  # noqa: PLC0415

    if named == NO_VAULT:
        return None
    return Vault(Path(named).expanduser() if named else setup.vault_path, setup.keys)


def _profile(options: argparse.Namespace, settings: Settings) -> Profile:
    from imaging_pipeline.deid.profile import load_profile  # noqa: PLC0415

    return load_profile(options.profile or settings.profile)


def _run(options: argparse.Namespace, settings: Settings, bars: Bars) -> int:
    from imaging_pipeline.deid.folder import FolderReleaser, run_folder  # noqa: PLC0415
    from imaging_pipeline.deid.pixels import Decisions  # noqa: PLC0415

    setup = _setup(options, settings)
    decisions = Decisions.load(_decisions_path(options, settings))
    releaser = FolderReleaser(_profile(options, settings), setup.keys, decisions)
    out = options.out.expanduser().absolute()
    with bars() as bar:
        evidence = run_folder(
            options.input,
            out,
            releaser,
            patient_domain=setup.source,
            vault=_vault(options.vault, setup),
            workers=options.workers or settings.workers,
            progress=_steps(bar),
        )
    _print(evidence)
    print(f"evidence: {out / 'evidence' / 'index.html'}")
    is_all = evidence.count("in") == evidence.count("released")
    return ALL_RELEASED if is_all else SOMETHING_HELD


def _steps(bar: Callable[[str], Advance]) -> Callable[[str, int, int], None]:
    """A callback that is told how many of a step are done in all, on bars that are told how many more."""
    opened: dict[str, tuple[Advance, int]] = {}

    def report(step: str, done: int, total: int) -> None:
        advance, before = opened.get(step) or (bar(step), 0)
        advance(done - before, total)
        opened[step] = advance, done

    return report


def _print(evidence: Evidence) -> None:
    found, released, held, failed = (evidence.count(name) for name in ("in", "released", "held", "failed"))
    print(f"in {found} = released {released} + held {held} + failed {failed}; files {evidence.count('files')}")
    for row in evidence.tables["reasons"]:
        print(f"  {row['objects']:>6}  {row['verdict']:8}  {row['reason']}: {row['most_often']}")
    for row in evidence.tables["counts"]:
        if str(row["measure"]).startswith("passed over"):
            print(f"  {row['objects']:>6}  {row['measure']}")


def _explain(options: argparse.Namespace, settings: Settings) -> int:
    from imaging_pipeline.deid.explain import explain_attribute, explain_object  # noqa: PLC0415

    profile, path = _profile(options, settings), Path(options.what).expanduser()
    if path.is_file():
        found = explain_object(path.read_bytes(), profile)
    else:
        found = (explain_attribute(options.what, profile, options.sop_class, options.manufacturer),)
    for each in found:
        print(f"{each.path}  {each.vr:2}  {each.name}\n    {each.action}  {each.effect}: {each.why}")
    return ALL_RELEASED


def _review(options: argparse.Namespace, settings: Settings) -> int:
    """List what was held with the place of each object, found again by its keyed token."""
    from imaging_pipeline.deid.inputs import place_of  # noqa: PLC0415

    held = _held(options.out.expanduser())
    items = _listed(options, _setup(options, settings))
    if held and not any(row["object"] in items for row in held):
        raise ConfigurationError("none of the objects is in this input: name the input, project and key of the run")
    wanted = [row for row in held if options.reason in (None, row["reason"])]
    for row in wanted:
        item = items.get(row["object"])
        where = f" at {row['dicom_path']}" if row["dicom_path"] else ""
        print(f"{row['object']}  {row['verdict']}  {row['reason']}{where}: {row['message']}")
        print(f"    {place_of(item) if item else 'not in this input any more'}")
    print(f"{len(wanted)} objects", file=sys.stderr)
    return SOMETHING_HELD if wanted else ALL_RELEASED


def _decide(options: argparse.Namespace, settings: Settings) -> int:
    """Note a decision; the next run follows it."""
    from imaging_pipeline.deid.pixels import Decision, Verdict  # noqa: PLC0415
    from imaging_pipeline.deid.review import decided  # noqa: PLC0415

    item = _listed(options, _setup(options, settings)).get(options.object)
    if item is None:
        raise ConfigurationError("no such object in this input: 'imaging-pipeline deid review' lists them")
    boxes = tuple(_box(text) for text in options.box)
    decision = Decision(Verdict(options.decision), boxes, options.by, options.why)
    path = _decisions_path(options, settings)
    decided(path, item, decision, is_for_device=options.device)
    print(f"noted in {path}; run the release again")
    return ALL_RELEASED


def _decisions_path(options: argparse.Namespace, settings: Settings) -> Path:
    path: Path = options.decisions or settings.decisions_path
    return path.expanduser()


def _box(text: str) -> Box:
    from imaging_pipeline.deid.pixels.boxes import box_of  # noqa: PLC0415

    parts = text.split(",")
    box = box_of([int(part) for part in parts]) if all(part.strip().isdecimal() for part in parts) else None
    if box is None:
        raise ConfigurationError("a box is LEFT,TOP,RIGHT,BOTTOM in pixels, counted from 0, the last two not included")
    return box


def _listed(options: argparse.Namespace, setup: _Setup) -> dict[str, Item]:
    from imaging_pipeline.deid.inputs import list_inputs  # noqa: PLC0415
    from imaging_pipeline.objects.reading import ObjectReader  # noqa: PLC0415

    listed = list_inputs(options.input, None, setup.keys, ObjectReader(), setup.source)
    return {item.token: item for item in listed.items}


def _held(out: Path) -> list[dict[str, str]]:
    try:
        with (out / "evidence" / "held.csv").open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError:
        raise ConfigurationError("there is no evidence in the output folder: name what a run has made") from None


def _reveal(options: argparse.Namespace, settings: Settings) -> int:
    """Print what a pseudonym stands for: from the vault, else the Patient ID that FF1 made it from."""
    from imaging_pipeline.deid.vault import KINDS  # noqa: PLC0415

    setup = _setup(options, settings)
    vault = _vault(options.vault, setup)
    found = [vault.original(kind, options.pseudonym) for kind in KINDS] if vault else []
    if not any(found):
        found = [setup.keys.original_patient_id(setup.source, options.pseudonym)]
    originals = [text for text in found if text]
    if not originals:
        raise ConfigurationError("the vault does not know it: name the vault, project and key of the run")
    for original in originals:
        print(str(original).replace("\x1f", " "))
    return ALL_RELEASED
