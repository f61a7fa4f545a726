"""Documents inside objects (PS3.3 C.24): PDF, CDA and models cannot be cleaned; an empty document takes their place.

Owns the empty documents and the attributes that describe them. Contains no judgement whether an object is released.
"""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset

from imaging_pipeline.deid.profile import Profile
from imaging_pipeline.deid.reading import tag_of, texts_of
from imaging_pipeline.errors import PoisonInput, Reason

DOCUMENT_KEYWORD: Final = "EncapsulatedDocument"

_DOCUMENT_CLASSES: Final = "1.2.840.10008.5.1.4.1.1.104."

PLACEHOLDERS: Final = {
    "application/pdf": (
        b"%PDF-1.4\n"
        b"1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"
        b"2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n"
        b"3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>\nendobj\n"
        b"xref\n0 4\n0000000000 65535 f \n0000000009 00000 n \n0000000054 00000 n \n0000000105 00000 n \n"
        b"trailer\n<</Size 4/Root 1 0 R>>\nstartxref\n170\n%%EOF\n"
    ),
    "text/xml": b'<?xml version="1.0" encoding="UTF-8"?>\n<ClinicalDocument xmlns="urn:hl7-org:v3"/>\n',
    "model/stl": bytes(84),
    "model/obj": b"# empty\n",
    "model/mtl": b"# empty\n",
}
"""An empty document by MIME type: one blank page, an empty element, a mesh without triangles."""


def check(ds: Dataset, profile: Profile) -> None:
    """Hold an object with a document inside, unless the profile puts a placeholder there and one exists.

    Raises:
        PoisonInput: NOT_DEIDENTIFIABLE.
    """
    if not is_document(ds):
        return
    if profile.encapsulated_documents == "hold":
        raise _held("the object holds a document, which cannot be cleaned")
    if mime_type(ds) not in PLACEHOLDERS:
        raise _held("the object holds a document of a kind that has no placeholder")


def placeholder(ds: Dataset) -> bytes:
    """The empty document for the MIME type of ``ds``, of even length; two zero bytes for a type that has none."""
    document = PLACEHOLDERS.get(mime_type(ds), b"\0\0")
    return document + b"\0" * (len(document) % 2)


def describe(out: Dataset, source: Dataset) -> None:
    """Write what describes the placeholder: MIME type, length without padding, and that nothing is burned into it."""
    if not is_document(source) or DOCUMENT_KEYWORD not in out:
        return
    out.MIMETypeOfEncapsulatedDocument = mime_type(source)
    out.BurnedInAnnotation = "NO"
    if "EncapsulatedDocumentLength" in source:
        out.EncapsulatedDocumentLength = len(PLACEHOLDERS[mime_type(source)])


def is_document(ds: Dataset) -> bool:
    """Whether the object is of a class that carries a document (Encapsulated PDF, CDA, STL, OBJ, MTL)."""
    return "".join(texts_of(ds, "SOPClassUID")).startswith(_DOCUMENT_CLASSES)


def mime_type(ds: Dataset) -> str:
    """The MIME type of the document, in lower case; empty when the object does not say it."""
    return "".join(texts_of(ds, "MIMETypeOfEncapsulatedDocument")).lower()


def _held(why: str) -> PoisonInput:
    return PoisonInput(Reason.NOT_DEIDENTIFIABLE, why, dicom_path=f"{tag_of(DOCUMENT_KEYWORD):08X}")
