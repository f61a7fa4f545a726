"""Documents of the DICOM JSON Model as XML of the Native DICOM Model (PS3.19 A.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from pydicom.datadict import keyword_for_tag

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def native_xml(document: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One document as an XML file in UTF-8.

    >>> native_xml({"00080060": {"vr": "CS", "Value": ["CT"]}}).decode()[-83:-19]
    'keyword="Modality"><Value number="1">CT</Value></DicomAttribute>'
    """
    root = ET.Element("NativeDicomModel", {"xmlns": NAMESPACE, "xml:space": "preserve"})
    _add(root, document)
    found: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return found


def _add(parent: ET.Element, document: Mapping[str, Mapping[str, Any]]) -> None:
    for tag in sorted(document):
        element = document[tag]
        keyword = keyword_for_tag(int(tag, 16))
        names = {"tag": tag, "vr": element["vr"]} | ({"keyword": keyword} if keyword else {})
        attribute = ET.SubElement(parent, "DicomAttribute", names)
        if "BulkDataURI" in element:
            ET.SubElement(attribute, "BulkData", {"uri": element["BulkDataURI"]})
        if "InlineBinary" in element:
            ET.SubElement(attribute, "InlineBinary").text = element["InlineBinary"]
        for number, value in enumerate(element.get("Value", ()), start=1):
            _add_value(attribute, element["vr"], number, value)


def _add_value(attribute: ET.Element, vr: str, number: int, value: Any) -> None:
    if value is None:
        return
    counted = {"number": str(number)}
    if vr == "SQ":
        _add(ET.SubElement(attribute, "Item", counted), value)
    elif vr == "PN":
        name = ET.SubElement(attribute, "PersonName", counted)
        for group in _GROUPS:
            if value.get(group):
                below = ET.SubElement(name, group)
                for component, text in zip(_COMPONENTS, value[group].split("^"), strict=False):
                    if text:
                        ET.SubElement(below, component).text = _legal(text)
    else:
        ET.SubElement(attribute, "Value", counted).text = _legal(str(value))


def _legal(text: str) -> str:
    """A text without the control characters that XML 1.0 cannot hold, such as escape sequences."""
    return "".join(letter for letter in text if letter >= " " or letter in "\t\n\r")
