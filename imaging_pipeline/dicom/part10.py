"""Writing an object this software makes itself: a data set to the bytes of a file (PS3.10 7.1)."""

from __future__ import annotations

import io

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian


def to_part10(ds: Dataset, transfer_syntax: UID, implementation_uid: UID, implementation_name: str) -> bytes:
    """Bytes of a DICOM file; the same data set always gives the same bytes.

    Args:
        ds: with SOP Class UID and SOP Instance UID; gets the file meta information.
        transfer_syntax: any little endian one.
        implementation_uid: Implementation Class UID of who writes it.
        implementation_name: Implementation Version Name.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = implementation_uid
    meta.ImplementationVersionName = implementation_name
    ds.file_meta = meta
    buffer = io.BytesIO()
    is_implicit = transfer_syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, ds, implicit_vr=is_implicit, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()
