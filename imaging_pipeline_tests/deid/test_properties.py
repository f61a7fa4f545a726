"""What holds for any study: references resolve, intervals stay, one key one result, two keys nothing alike."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from imaging_pipeline.deid.engine import Deidentifier
from imaging_pipeline.deid.profile import load_profile
from imaging_pipeline.deid.pseudonyms import ProjectKeys
from imaging_pipeline.errors import PoisonInput
from imaging_pipeline_tests.deid.corpus import MASTER_KEY, chest_film, encode, keys
from imaging_pipeline_tests.deid.planted.collection import report_objects
from imaging_pipeline_tests.deid.planted.headers import radiograph
from imaging_pipeline_tests.deid.planted.outcome import DOMAIN, PROFILES, engine
from imaging_pipeline_tests.deid.planted.patients import UMLAUT, ZWYNT
from imaging_pipeline_tests.deid.planted.plants import ROOT

FEW = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
REFERENCES = ("ReferencedImageSequence", "SourceImageSequence", "ReferencedInstanceSequence")
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime")

FIRST = dt.datetime(1991, 1, 2, tzinfo=dt.UTC)
moments = st.integers(0, 58 * 365 * 86_400).map(lambda seconds: FIRST + dt.timedelta(seconds=seconds))
uids = st.lists(st.integers(0, 99_999), min_size=1, max_size=5).map(lambda parts: ".".join(map(str, (ROOT, *parts))))


def _released(ds: Dataset, profile: str = "research") -> FileDataset:
    made = engine(profile).deidentify(encode(ds), patient_domain=DOMAIN)
    return dcmread(BytesIO(made.data))


def _moment(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)


@FEW
@given(st.lists(uids, min_size=2, max_size=6, unique=True), st.data(), st.sampled_from(PROFILES))
def test_every_reference_still_leads_to_the_object_it_led_to(
    instances: list[str], data: st.DataObject, profile: str
) -> None:
    chosen = st.lists(st.tuples(st.sampled_from(REFERENCES), st.sampled_from(instances), st.integers(0, 2)), max_size=5)
    references = [data.draw(chosen) for _ in instances]
    objects = []
    for instance, leads in zip(instances, references, strict=True):
        ds = chest_film(SOPInstanceUID=instance)
        for keyword, target, depth in leads:
            _refer(ds, keyword, target, depth)
        objects.append(_released(ds, profile))
    found = {old: str(new.SOPInstanceUID) for old, new in zip(instances, objects, strict=True)}
    assert len(set(found.values())) == len(instances)
    for ds, leads in zip(objects, references, strict=True):
        expected = sorted(found[target] for _, target, _ in leads)
        assert (
            sorted(str(elem.value) for elem in ds.iterall() if elem.keyword == "ReferencedSOPInstanceUID") == expected
        )
    assert len({str(ds.StudyInstanceUID) for ds in objects}) == 1


def _refer(ds: Dataset, keyword: str, target: str, depth: int) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", target
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([item])
        item = outer
    setattr(ds, keyword, Sequence([*(ds.get(keyword) or ()), item]))


@FEW
@given(st.lists(moments, min_size=4, max_size=4), st.lists(moments, min_size=1, max_size=3), st.sampled_from(PROFILES))
def test_every_interval_between_moments_of_a_patient_stays_to_the_second(
    paired: list[dt.datetime], single: list[dt.datetime], profile: str
) -> None:
    ds = chest_film()
    for date, time, moment in zip(DATES, TIMES, paired, strict=True):
        setattr(ds, date, f"{moment:%Y%m%d}")
        setattr(ds, time, f"{moment:%H%M%S}")
    for keyword, moment in zip(
        ("AcquisitionDateTime", "FrameReferenceDateTime", "FrameAcquisitionDateTime"), single, strict=False
    ):
        setattr(ds, keyword, f"{moment:%Y%m%d%H%M%S}")
    out = _released(ds, profile)
    moved = [_moment(out[date].value + out[time].value) for date, time in zip(DATES, TIMES, strict=True)]
    keywords = ("AcquisitionDateTime", "FrameReferenceDateTime", "FrameAcquisitionDateTime")[: len(single)]
    moved += [_moment(str(out[keyword].value)) for keyword in keywords]
    shifts = {after - before for before, after in zip([*paired, *single], moved, strict=True)}
    assert len(shifts) == 1
    assert shifts.pop() <= -dt.timedelta(days=1)


@FEW
@given(st.lists(st.tuples(moments, st.sampled_from(["A1", "B2", "C3"])), min_size=2, max_size=4))
def test_objects_of_one_patient_move_together_and_patients_apart(studies: list[tuple[dt.datetime, str]]) -> None:
    shifts: dict[str, set[dt.timedelta]] = {}
    for number, (moment, patient) in enumerate(studies):
        ds = chest_film(
            PatientID=f"SUBJ-{patient}", StudyDate=f"{moment:%Y%m%d}", StudyTime=f"{moment:%H%M%S}",
            StudyInstanceUID=f"{ROOT}.5.{number}",
        )  # fmt: skip
        out = _released(ds)
        moved = _moment(out.StudyDate + out.StudyTime)
        shifts.setdefault(str(out.PatientID), set()).add(moved - moment)
    assert len(shifts) == len({patient for _, patient in studies})
    assert all(len(moves) == 1 for moves in shifts.values())
    assert len(set.union(*shifts.values())) == len(shifts)


@FEW
@given(
    st.text(min_size=1, max_size=40).filter(str.strip),
    st.sampled_from(["SeriesDescription", "ImageComments", "DeviceDescription"]),
)
def test_any_text_is_released_clean_or_held_and_twice_the_same(text: str, keyword: str) -> None:
    ds = chest_film(SpecificCharacterSet="ISO_IR 192")
    try:
        setattr(ds, keyword, f"{text} {ZWYNT.family}")
        content = encode(ds)
    except (ValueError, UnicodeError):
        return
    try:
        made = engine("research").deidentify(content, patient_domain=DOMAIN).data
    except PoisonInput as refusal:
        made, message = b"", str(refusal)
    else:
        message = ""
    assert ZWYNT.family not in message
    assert message or made == engine("research").deidentify(content, patient_domain=DOMAIN).data
    assert ZWYNT.family.lower().encode() not in made.lower()


_SCRIPT = """
import hashlib, json, sys
from imaging_pipeline_tests.deid.planted.headers import radiograph
from imaging_pipeline_tests.deid.planted.outcome import DOMAIN, engine
from imaging_pipeline_tests.deid.planted.patients import UMLAUT, ZWYNT
found = {}
for profile in ("basic", "research"):
    for patient in (ZWYNT, UMLAUT):
        made = engine(profile).deidentify(radiograph(patient).data, patient_domain=DOMAIN)
        found[f"{profile} {patient.family}"] = hashlib.sha256(made.data).hexdigest()
print(json.dumps(found))
"""


def test_two_machines_with_one_key_give_the_same_bytes() -> None:
    surroundings = (
        {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "77", "TZ": "America/Adak", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"},
    )
    root = Path(__file__).parents[2]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            env=os.environ | extra,
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for extra in surroundings
    ]
    here = {
        f"{profile} {patient.family}": hashlib.sha256(
            engine(profile).deidentify(radiograph(patient).data, patient_domain=DOMAIN).data
        ).hexdigest()
        for profile in PROFILES
        for patient in (ZWYNT, UMLAUT)
    }
    assert [json.loads(output) for output in outputs] == [here, here]


def _traces(ds: FileDataset) -> tuple[set[str], set[str], tuple[str, str]]:
    """What another project could be joined by: UIDs below no root of the standard, pseudonyms, the first moment."""
    found = {str(elem.value) for elem in ds.iterall() if elem.VR == "UI" and str(elem.value).startswith("2.25.")}
    pseudonyms = {str(ds.PatientID), str(ds.PatientName), str(ds.AccessionNumber)}
    return found, pseudonyms, (str(ds.StudyDate), str(ds.StudyTime))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("project", "epoch"), [("liver", 0), ("chest", 1)])
def test_another_project_or_epoch_has_nothing_in_common(profile: str, project: str, epoch: int) -> None:
    other = Deidentifier(load_profile(profile), ProjectKeys.derive(MASTER_KEY, project, epoch))
    for planted in (radiograph(ZWYNT), radiograph(UMLAUT), report_objects()[0]):
        if planted.name == "report" and profile == "basic":
            continue
        ours, theirs = (
            _traces(dcmread(BytesIO(one.deidentify(planted.data, patient_domain=DOMAIN).data)))
            for one in (engine(profile), other)
        )
        assert len(ours[0]) > 2
        assert ours[0].isdisjoint(theirs[0])
        assert ours[1].isdisjoint(theirs[1])
        assert ours[2] != theirs[2]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_de_identified_twice_differs_from_both(profile: str) -> None:
    once = engine(profile).deidentify(radiograph(ZWYNT).data, patient_domain=DOMAIN)
    twice = engine(profile).deidentify(once.data, patient_domain=DOMAIN)
    assert twice.sop_instance_uid != once.sop_instance_uid
    assert twice.patient_id != once.patient_id
    assert keys().project == "chest"
