"""Headers to DICOM JSON against pydicom, dcm2json, python-gdcm and dicomsdl. Last line: one JSON object.

Each reads every file from disk and makes a DICOM JSON document of all its elements, nested ones too; pydicom stops at
``to_json_dict``, which spares it the text. The files end before the pixel data, since not every tool can leave them
alone. CPU time of the process (user and system), for dcm2json of its child processes; in turn, median of the rounds.

Our reader starts each round with nothing remembered. ``…_no_memo`` is the same reader that may remember nothing, as
if no element were ever met twice. dcm2json takes one file a process; ``ratio_vs_dcm2json_without_start`` leaves out
what it needs for a file of two elements. A tool that is not installed is left out, and the output says so.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import os
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_pipeline.dicom.header import HeaderReader
from imaging_pipeline.samples.phantoms import make_image, plan_patient

ROUNDS = 5
PREFIX_BYTES = 64 * 1024
SMALL_PATIENTS = 200
SERIES, SLICES = 6, 60
DCM2JSON_FILES = 40

Tool = Callable[[Path], object]


# The corpora

STUDY = """StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyDescription PatientName PatientID
PatientBirthDate PatientSex PatientAge PatientSize PatientWeight StudyInstanceUID StudyID InstitutionName
InstitutionAddress StationName InstitutionalDepartmentName OperatorsName MedicalAlerts Occupation
AdditionalPatientHistory PatientComments AdmissionID CurrentPatientLocation PerformingPhysicianName"""
SERIES_WIDE = """SeriesDate SeriesTime Modality Manufacturer SeriesDescription ManufacturerModelName BodyPartExamined
ScanOptions SliceThickness KVP DataCollectionDiameter DeviceSerialNumber SoftwareVersions ProtocolName
ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt TableHeight
RotationDirection ExposureTime XRayTubeCurrent GeneratorPower FocalSpots DateOfLastCalibration TimeOfLastCalibration
ConvolutionKernel PatientPosition SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation
SpiralPitchFactor FilterType SeriesInstanceUID SeriesNumber FrameOfReferenceUID PositionReferenceIndicator
SamplesPerPixel PhotometricInterpretation Rows Columns PixelSpacing BitsAllocated BitsStored HighBit
PixelRepresentation WindowCenter WindowWidth RescaleIntercept RescaleSlope RescaleType LossyImageCompression
PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepID
PerformedProcedureStepDescription ImageOrientationPatient BurnedInAnnotation QualityControlImage
ContrastBolusAgent ContrastBolusRoute ContrastBolusVolume RevolutionTime DataCollectionCenterPatient
ReconstructionTargetCenterPatient EstimatedDoseSaving ReconstructionAlgorithm ExposureModulationType"""
OBJECT_WIDE = """InstanceCreationDate InstanceCreationTime SOPInstanceUID ContentDate ContentTime AcquisitionDate
AcquisitionTime AcquisitionNumber InstanceNumber ImagePositionPatient SliceLocation Exposure CTDIvol
SmallestImagePixelValue LargestImagePixelValue ImageComments AcquisitionDateTime"""
WORDS = ("Thorax", "axial", "contrast", "head first", "Straße", "routine", "recon", "B30f", "low dose", "follow-up")


def value_of(vr: str, chance: random.Random) -> object:
    """A value that fits a representation."""
    word, number = " ".join(chance.sample(WORDS, 2)), chance.randint(0, 30_000)
    day = dt.date(2015, 1, 1) + dt.timedelta(days=chance.randint(0, 3000))
    time_of_day = f"{chance.randint(8, 19):02}{chance.randint(0, 59):02}{chance.randint(0, 59):02}.{number:06}"
    by_vr: dict[str, object] = {
        "DA": f"{day:%Y%m%d}",
        "TM": time_of_day,
        "DT": f"{day:%Y%m%d}{time_of_day}",
        "UI": f"2.25.{chance.getrandbits(120)}",
        "PN": f"Müller{number}^{word[:5]}",
        "AS": f"{number % 90:03}Y",
        "CS": word.upper().replace("ß", "SS").replace("-", "_")[:16],
        "DS": [f"{chance.uniform(-300, 300):.6g}" for _ in range(chance.choice((1, 2, 3, 6)))],
        "IS": str(number),
        "US": number,
        "SS": number,
        "US or SS": number,
        "FD": [chance.uniform(-300, 300) for _ in range(chance.choice((1, 3)))],
        "SH": word[:16],
    }
    return by_vr.get(vr, f"{word} {number}")


def filled(ds: Dataset, keywords: str, *seed: object) -> Dataset:
    """The data set with values for these attributes that follow from the seed."""
    for keyword in keywords.split():
        vr = dictionary_VR(keyword)
        setattr(ds, keyword, value_of(vr, random.Random(f"{keyword} {seed}")))
    return ds


def code(*seed: object) -> Dataset:
    item = filled(Dataset(), "CodeValue CodeMeaning", *seed)
    item.CodingSchemeDesignator = "SCT"
    return item


def reference(*seed: object) -> Dataset:
    return filled(Dataset(), "ReferencedSOPClassUID ReferencedSOPInstanceUID", *seed)


def common(series: int, number: int) -> Dataset:
    """One image of a series: the usual modules, sequences and private blocks, about 200 elements."""
    ds = filled(filled(filled(Dataset(), STUDY, series // 2), SERIES_WIDE, series), OBJECT_WIDE, series, number)
    ds.SpecificCharacterSet, ds.SOPClassUID = "ISO_IR 100", "1.2.840.10008.5.1.4.1.1.2"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ProcedureCodeSequence, ds.AnatomicRegionSequence = [code(series // 2)], [code("region", series)]
    ds.ReferencedStudySequence = [reference("study", series // 2)]
    ds.SourceImageSequence = [reference(series, number, place) for place in range(3)]
    request = filled(Dataset(), "RequestedProcedureDescription ScheduledProcedureStepID", series)
    request.ScheduledProtocolCodeSequence = [code("protocol", series)]
    ds.RequestAttributesSequence = [request]
    for group, creator in ((0x0019, "BENCH ACQUISITION"), (0x0043, "BENCH PARAMETERS")):
        ds.add_new((group, 0x0010), "LO", creator)
        for place in range(30):
            vr = ("DS", "LO", "IS", "SH", "US", "FD")[place % 6]
            seed = (group, place, series, number if place % 10 == 0 else 0)
            ds.add_new((group, 0x1000 + place), vr, value_of(vr, random.Random(str(seed))))
    return ds


def multi_frame(series: int, number: int) -> Dataset:
    """An enhanced image with functional groups of a few frames (PS3.3 C.7.6.16)."""
    ds = common(series, number)
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = [filled(Dataset(), "PixelSpacing SliceThickness", series)]
    shared.PlaneOrientationSequence = [filled(Dataset(), "ImageOrientationPatient", series)]
    for frame in range(8):
        seed = (series, number, frame)
        groups = Dataset()
        groups.FrameContentSequence = [filled(Dataset(), "FrameAcquisitionDateTime FrameAcquisitionNumber", *seed)]
        groups.PlanePositionSequence = [filled(Dataset(), "ImagePositionPatient", *seed)]
        groups.PixelValueTransformationSequence = [filled(Dataset(), "RescaleIntercept RescaleSlope", series)]
        groups.FrameVOILUTSequence = [filled(Dataset(), "WindowCenter WindowWidth", series)]
        frames.append(groups)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    return ds


def report(series: int, number: int) -> Dataset:
    """A structured report: a tree of content items (PS3.3 C.17.3)."""
    ds = filled(filled(Dataset(), STUDY, series), OBJECT_WIDE, series, number)
    ds.SpecificCharacterSet, ds.SOPClassUID = "ISO_IR 192", "1.2.840.10008.5.1.4.1.1.88.33"
    ds.ContentSequence = [content(3, series, number, place) for place in range(2)]
    return ds


def content(depth: int, *seed: object) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "NUM" if depth == 0 else "CONTAINER"
    item.ConceptNameCodeSequence = [code(depth, seed[-1])]
    if depth == 0:
        measured = filled(Dataset(), "NumericValue", *seed)
        measured.MeasurementUnitsCodeSequence = [code("unit")]
        item.MeasuredValueSequence = [measured]
    else:
        item.ContentSequence = [content(depth - 1, *seed, place) for place in range(2)]
    return item


def written(ds: Dataset, syntax: str, *, undefined: bool) -> bytes:
    """The file; its sequences of undefined length where asked for."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2.3")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3.4")
    if undefined:
        for element in ds.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def small_headers() -> Iterator[bytes]:
    """X-rays as the package's samples make them, each study of a patient of its own: about 100 elements."""
    for number in range(SMALL_PATIENTS):
        for plan in plan_patient(7, number, 96):
            data = make_image(plan).content
            header = HeaderReader().read(data)
            yield data[: header.header_bytes]


def rich_headers() -> Iterator[bytes]:
    """Series of images, enhanced multi-frame images and reports: 200 to 350 elements."""
    kinds: Sequence[tuple[Callable[[int, int], Dataset], int]] = ((common, SLICES), (multi_frame, 6), (report, 6))
    for series in range(SERIES):
        syntax = ImplicitVRLittleEndian if series % 3 == 2 else ExplicitVRLittleEndian
        for make, count in kinds:
            for number in range(count):
                yield written(make(series, number), syntax, undefined=series % 2 == 1)


# The tools


def ours(reader: HeaderReader) -> Tool:
    def read(path: Path) -> str:
        number = os.open(path, os.O_RDONLY)
        try:
            prefix, size = os.read(number, PREFIX_BYTES), os.fstat(number).st_size
            return reader.read(prefix, size=size, more=lambda upto: os.pread(number, upto, 0)).json
        finally:
            os.close(number)

    return read


def pydicom_dict(path: Path) -> dict[str, Any]:
    ds = pydicom.dcmread(path, stop_before_pixels=True)
    return dict(ds.to_json_dict(bulk_data_element_handler=lambda _: "bulk"))


FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FD": "d", "FL": "f"}
NUMBERS = {"DS": float, "IS": int}
BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}


def text_values(vr: str, text: str) -> list[object]:
    if vr == "PN":
        return [{"Alphabetic": name} for name in text.split("\\")]
    number = NUMBERS.get(vr, str)
    return [number(part) if part else None for part in text.split("\\")]


def value_of_bytes(vr: str, raw: bytes) -> dict[str, Any]:
    if vr in FORMATS:
        return {"Value": list(memoryview(raw).cast(FORMATS[vr]))}
    if vr in BINARY:
        return {"InlineBinary": raw.hex()}
    return {"Value": text_values(vr, raw.decode("latin-1").rstrip(" \0"))}


def gdcm_json(gdcm: ModuleType) -> Tool:
    """Its own JSON writer needs a C++ stream, which its Python module cannot give; so its elements are walked."""

    def attribute(file: Any, ds: Any, element: Any) -> dict[str, Any]:
        vr = str(element.GetVR())
        if len(vr) != 2 or not vr.isalpha():  # implicit: by its dictionary
            vr = str(gdcm.DataSetHelper.ComputeVR(file, ds, element.GetTag()))
        if element.IsEmpty():
            return {"vr": vr}
        if vr == "SQ":
            items = element.GetValueAsSQ()
            length = range(1, items.GetNumberOfItems() + 1)
            return {"vr": "SQ", "Value": [data_set(file, items.GetItem(place).GetNestedDataSet()) for place in length]}
        raw = element.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
        return {"vr": vr, **value_of_bytes(vr, raw)}

    def data_set(file: Any, ds: Any) -> dict[str, Any]:
        found = {}
        for element in ds.GetDES():
            tag = element.GetTag()
            found[f"{tag.GetGroup():04X}{tag.GetElement():04X}"] = attribute(file, ds, element)
        return found

    def read(path: Path) -> str:
        reader = gdcm.Reader()
        reader.SetFileName(str(path))
        if not reader.Read():
            raise RuntimeError(f"gdcm cannot read file {path.name} of the corpus")
        return json.dumps(data_set(reader.GetFile(), reader.GetFile().GetDataSet()))

    return read


def dicomsdl_json(dicomsdl: ModuleType) -> Tool:
    """It has no JSON writer; its elements are walked, with the values it decodes."""

    def attribute(element: Any) -> dict[str, Any]:
        vr = element.vr().name
        if vr == "SQ":
            return {"vr": vr, "Value": [data_set(item) for item in element.toSequence()]}
        if vr in BINARY:
            return {"vr": vr, "InlineBinary": element.toBytes().hex()}
        value = element.value()
        values = value if isinstance(value, list) else [value]
        return {"vr": vr, "Value": [{"Alphabetic": one} for one in values] if vr == "PN" else values}

    def data_set(ds: Any) -> dict[str, Any]:
        return {f"{element.tag():08X}": attribute(element) for element in ds}

    return lambda path: json.dumps(data_set(dicomsdl.open(str(path))))


def installed(name: str) -> ModuleType | None:
    try:
        return __import__(name)
    except ImportError:
        print(f"{name} is not installed and left out")
        return None


# Measuring


def cpu_us(tool: Tool, files: Sequence[Path]) -> float:
    start = time.process_time()
    for path in files:
        tool(path)
    return (time.process_time() - start) / len(files) * 1e6


def child_cpu_us(command: Sequence[str], arguments: Sequence[str]) -> float:
    """CPU time of a process for each argument, µs."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    start = used()
    for argument in arguments:
        subprocess.run([*command, argument], check=True, stdout=subprocess.PIPE)
    return (used() - start) / len(arguments) * 1e6


def accepted(command: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Some of the files, enough for a mean, less those the tool refuses: it may lack character sets."""
    some = [str(path) for path in files[:: max(1, len(files) // DCM2JSON_FILES)]]
    found = [path for path in some if not subprocess.run([*command, path], check=False, capture_output=True).returncode]
    print(f"dcm2json accepts {len(found)} of {len(some)} files")
    return found


def compare(name: str, files: Sequence[Path], peers: dict[str, Tool], dcm2json: str | None) -> dict[str, float]:
    """Figures of one corpus: µs of CPU time a header, and theirs over ours."""
    times: dict[str, list[float]] = {}
    command = [dcm2json or "", "--quiet", "--compact-code"]
    some = accepted(command, files) if dcm2json else []
    smallest = files[0].with_name("smallest.dcm")
    smallest.write_bytes(written(reference("smallest"), ExplicitVRLittleEndian, undefined=False))

    def note(tool: str, value: float) -> None:
        times.setdefault(tool, []).append(value)

    for _ in range(ROUNDS):
        note("ours", cpu_us(ours(HeaderReader()), files))
        note("ours_no_memo", cpu_us(ours(HeaderReader(memo_bytes=0)), files))
        for tool, peer in peers.items():
            note(tool, cpu_us(peer, files))
        if some:
            whole = child_cpu_us(command, some)
            note("dcm2json", whole)
            note("dcm2json_without_start", max(whole - child_cpu_us(command, [str(smallest)] * len(some)), 1.0))
    elements = [HeaderReader().read(path.read_bytes()).element_count for path in files]
    figures = {"files": float(len(files)), "elements": statistics.mean(elements)}
    for tool, values in times.items():
        figures[f"us_{tool}"] = statistics.median(values)
        print(f"{name}: {tool} {1e6 / figures[f'us_{tool}']:.0f} headers/s of CPU time")
        if not tool.startswith("ours"):
            figures[f"ratio_vs_{tool}"] = statistics.median(map(_over, values, times["ours"]))
    figures["ratio_vs_pydicom_no_memo"] = statistics.median(map(_over, times["pydicom"], times["ours_no_memo"]))
    return {f"{name}_{figure}": round(value, 2) for figure, value in figures.items()}


def _over(theirs: float, our: float) -> float:
    return theirs / our


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    peers: dict[str, Tool] = {"pydicom": pydicom_dict}
    for name, adapter in (("gdcm", gdcm_json), ("dicomsdl", dicomsdl_json)):
        module = installed(name)
        if module is not None:
            peers[name] = adapter(module)
    dcm2json = shutil.which("dcm2json")
    if dcm2json is None:
        print("dcm2json is not installed and left out")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for corpus, headers in (("small", small_headers()), ("rich", rich_headers())):
            files = []
            for number, data in enumerate(headers):
                path = Path(folder) / f"{corpus}{number:04}.dcm"
                path.write_bytes(data)
                files.append(path)
            figures |= compare(corpus, files, peers, dcm2json)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
