"""Phantoms as DICOM objects."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections import defaultdict
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.valuerep import PersonName

from imaging_pipeline.samples.anatomy import Box
from imaging_pipeline.samples.encoding import part10, put_pixels, stored_range
from imaging_pipeline.samples.phantoms import ImagePlan, make_image, plan_patient
from imaging_pipeline.samples.sites import SITES, Display, Machine

SIZE = 128
SEED = 7
MACHINES = tuple(machine for site in SITES for machine in site.machines)


@cache
def plans() -> tuple[ImagePlan, ...]:
    return tuple(plan for number in range(120) for plan in plan_patient(SEED, number, SIZE))


@cache
def made(station: str) -> tuple[ImagePlan, bytes, tuple[Box, ...]]:
    plan = next(plan for plan in plans() if plan.study.machine.station == station)
    image = make_image(plan)
    return plan, image.content, image.boxes


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.station)


def test_the_machines_cover_the_variants_a_pipeline_meets() -> None:
    assert {machine.bits_stored for machine in MACHINES} == {10, 12, 14, 16}
    assert {machine.display for machine in MACHINES} == set(Display)
    assert len({machine.transfer_syntax for machine in MACHINES}) == 5
    assert {(machine.modality, machine.inverted) for machine in MACHINES} == {
        ("DX", False),
        ("DX", True),
        ("CR", False),
        ("CR", True),
    }


@each_machine
def test_every_variant_reads_back_with_its_pixels(machine: Machine) -> None:
    plan, content, _ = made(machine.station)
    ds = read(content)
    pixels = ds.pixel_array
    assert pixels.dtype == np.uint16
    assert pixels.shape == (SIZE, round(SIZE * 35 / 43) if machine.portrait else SIZE)
    assert ds.file_meta.TransferSyntaxUID == machine.transfer_syntax
    assert (ds.Modality, ds.BitsStored, ds.HighBit) == (machine.modality, machine.bits_stored, machine.bits_stored - 1)
    low, high = stored_range(machine)
    assert low <= pixels.min() < low + 0.1 * (high - low)
    assert pixels.max() <= high
    assert str(ds.PatientName) == plan.study.patient.name
    assert ds.InstitutionName == plan.study.patient.site.institution


@each_machine
def test_values_written_are_the_values_read(machine: Machine) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((32, 48), dtype=np.float32)
    ds = Dataset()
    ds.SOPClassUID = ds.SOPInstanceUID = "1.2.3"
    ds.Modality = machine.modality
    put_pixels(ds, image, machine)
    shown = read(part10(ds, machine.transfer_syntax)).pixel_array.astype(float)
    low, high = stored_range(machine)
    expected = 1 - image if machine.inverted else image
    assert np.abs((shown - low) / (high - low) - expected).max() <= 0.51 / (high - low) + 1e-6


@each_machine
def test_the_display_pipeline_of_the_standard_recovers_full_contrast(machine: Machine) -> None:
    ds = read(made(machine.station)[1])
    values = apply_modality_lut(ds.pixel_array, ds).astype(np.int64)
    shown = apply_voi_lut(values, ds).astype(float)
    assert shown.max() - shown.min() > 0.7 * (2**machine.bits_stored - 1)


def test_monochrome1_stores_dense_tissue_as_low_values() -> None:
    for machine in MACHINES:
        ds = read(made(machine.station)[1])
        pixels = ds.pixel_array.astype(float)
        rows, columns = pixels.shape
        abdomen = pixels[-rows // 8 : -rows // 16, columns // 2 - 5 : columns // 2 + 5].mean()
        lung = np.median(pixels[rows // 3 : rows // 2, columns // 5 : columns // 3])
        assert ds.PhotometricInterpretation == ("MONOCHROME1" if machine.inverted else "MONOCHROME2")
        assert (abdomen < lung) == machine.inverted
        if machine.modality == "DX":
            assert ds.PresentationLUTShape == ("INVERSE" if machine.inverted else "IDENTITY")


def test_the_same_seed_gives_the_same_bytes() -> None:
    for station in ("LMCDX1", "HSRDX1", "HSRCR1", "SZDX1"):
        plan, content, _ = made(station)
        again = next(other for other in plans() if other.stem == plan.stem)
        assert make_image(again).content == content


def test_another_seed_size_or_patient_gives_other_names() -> None:
    stems = [
        {plan.stem for plan in plan_patient(seed, number, size)}
        for seed, number, size in ((7, 0, 128), (8, 0, 128), (7, 1, 128), (7, 0, 256))
    ]
    assert len(set().union(*stems)) == sum(len(part) for part in stems)


def test_stems_and_uids_are_unique_and_carry_no_identifier() -> None:
    stems = [plan.stem for plan in plans()]
    assert len(set(stems)) == len(stems)
    for plan in plans():
        assert plan.study.patient.patient_id.split("-")[1] not in plan.stem
    uids = [read(made(machine.station)[1]).SOPInstanceUID for machine in MACHINES]
    assert len(set(uids)) == len(uids)
    assert all(uid.startswith("2.25.") and uid.is_valid for uid in uids)


def test_studies_of_a_patient_share_the_identity_and_views_of_a_study_share_the_study() -> None:
    number = next(n for n in range(100) if len({plan.study.key for plan in plan_patient(SEED, n, SIZE)}) > 1)
    by_study: dict[str, list[Dataset]] = defaultdict(list)
    for plan in plan_patient(SEED, number, SIZE):
        ds = read(make_image(plan).content)
        by_study[ds.StudyInstanceUID].append(ds)
    everything = [ds for images in by_study.values() for ds in images]
    assert len(by_study) > 1
    assert len({(ds.PatientID, str(ds.PatientName), ds.PatientBirthDate, ds.PatientSex) for ds in everything}) == 1
    assert len({ds.SeriesInstanceUID for ds in everything}) == len(everything)
    for images in by_study.values():
        assert len({(ds.AccessionNumber, ds.StudyDate, ds.StudyTime) for ds in images}) == 1
        assert len({ds.ViewPosition for ds in images}) == len(images)


def test_both_views_of_a_study_carry_the_same_label() -> None:
    pair = next(
        (first, second)
        for first, second in zip(plans(), plans()[1:], strict=False)
        if first.study.key == second.study.key and first.study.opacities
    )
    assert all(make_image(plan).boxes for plan in pair)


def test_encoded_names_fit_the_64_bytes_that_strict_readers_allow() -> None:
    for site in SITES:
        encodings = convert_encodings(list(site.charset) or None)
        for family, given in product(site.families, site.women + site.men):
            groups = zip(family.split("="), given.split("="), strict=True)
            name = PersonName("=".join(f"{first}^{second}" for first, second in groups))
            assert len(name.encode(encodings)) <= 64


def test_ages_agree_with_birth_and_study_dates() -> None:
    for plan in plans():
        years = (plan.study.start.date() - plan.study.patient.birth_date).days / 365.25
        assert 18 <= years < 96
    ds = read(made("LMCDX1")[1])
    assert abs(int(ds.PatientAge[:3]) - (int(ds.StudyDate[:4]) - int(ds.PatientBirthDate[:4]))) <= 1


def test_machine_and_view_do_not_tell_the_label() -> None:
    many = [plan for number in range(700) for plan in plan_patient(3, number, SIZE)]
    shares: dict[str, list[bool]] = defaultdict(list)
    for plan in many:
        shares[plan.study.machine.modality].append(bool(plan.study.opacities))
        shares[plan.study.views[plan.index]].append(bool(plan.study.opacities))
        shares[f"female {plan.study.patient.female}"].append(bool(plan.study.opacities))
    assert all(0.38 < np.mean(labels) < 0.52 for labels in shares.values())


def test_a_private_block_repeats_the_patient_id() -> None:
    plan, content, _ = made("BODX1")
    block = read(content).private_block(0x0019, "SAMSUNG ELECTRONICS PHANTOM 1.0")
    assert plan.study.patient.patient_id in block[0x01].value
    assert str(block[0x04].value) == plan.study.patient.name


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@each_machine
def test_dciodvfy_finds_no_error(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "phantom.dcm"
    path.write_bytes(made(machine.station)[1])
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    lines = (found.stdout + found.stderr).splitlines()
    assert [line for line in lines if line.startswith(("Error", "Abort"))] == []
