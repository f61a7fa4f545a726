"""Keyed pseudonyms: the same original gives the same pseudonym everywhere the key is, and nothing without it.

Owns the derivation of a project's keys and every keyed function of the package. Contains no DICOM parsing, no storage
and no default key: a key is always given by the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from datetime import timedelta
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydicom._uid_dict import UID_dictionary

from imaging_pipeline.errors import ConfigurationError

MIN_KEY_BYTES: Final = 32
"""Shortest master key that is accepted: 256 bits."""

MIN_DISTINCT_BYTES: Final = 8
"""A master key with fewer different bytes is refused as a placeholder: 32 random bytes have 30 on average, 64 random
hexadecimal digits 15.7; fewer than 8 does not happen by chance (p < 1e-15)."""

MAX_SHIFT_DAYS: Final = 3650
"""Dates move back by one day at least and by this many days at most."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DAY_SECONDS: Final = 86_400
_NONCE_BYTES: Final = 12
_STANDARD_UID: Final = re.compile(r"1\.2\.840\.10008(\.(0|[1-9]\d{0,3})){1,8}")


class ProjectKeys:
    """The keys of one research project, one per purpose; objects of this class are secrets.

    Keys are derived from the master key by HKDF-SHA256 (RFC 5869) with project and purpose as context, so that two
    projects of one master key have nothing in common.
    """

    __slots__ = ("_accession", "_date", "_patient", "_seal", "_uid", "project")

    def __init__(self, project: str, uid: bytes, patient: bytes, accession: bytes, date: bytes, seal: bytes) -> None:
        self.project = project
        self._uid = uid
        self._patient = patient
        self._accession = accession
        self._date = date
        self._seal = seal

    @classmethod
    def derive(cls, master_key: bytes, project: str) -> ProjectKeys:
        """Derive the keys of ``project``.

        Args:
            master_key: at least 32 bytes from a random source.
            project: name of the research project; another name gives unlinkable pseudonyms.

        Raises:
            ConfigurationError: the key is too short or obviously not random, or the project has no name.
        """
        if len(master_key) < MIN_KEY_BYTES:
            raise ConfigurationError(f"the master key has {len(master_key)} bytes; at least {MIN_KEY_BYTES} are needed")
        if len(set(master_key)) < MIN_DISTINCT_BYTES:
            raise ConfigurationError("the master key repeats a few bytes; make one with a random number generator")
        if not project or project != project.strip():
            raise ConfigurationError("the project needs a name without blanks around it; it is part of every pseudonym")
        purposes = ("uid", "patient", "accession", "date", "seal")
        return cls(project, *(_derive(master_key, project, purpose) for purpose in purposes))

    def __repr__(self) -> str:
        return f"ProjectKeys(project={self.project!r})"

    def uid(self, original: str) -> str:
        """The research UID of ``original``: ``2.25.`` and a 128-bit keyed hash (PS3.5 B.2), at most 44 characters.

        UIDs the DICOM Standard registers (SOP classes, transfer syntaxes, coding schemes) are returned unchanged.
        """
        if is_standard_uid(original):
            return original
        return f"2.25.{int.from_bytes(_mac(self._uid, original)[:16], 'big')}"

    def patient_id(self, patient_domain: str, patient_id: str) -> str:
        """The pseudonym of a patient: ``P`` and 16 characters (80 bits), as Patient ID and as Patient's Name."""
        return "P" + _text(_mac(self._patient, patient_domain, patient_id), 16)

    def accession_number(self, patient_domain: str, original: str) -> str:
        """The pseudonym of an accession number: ``A`` and 15 characters (75 bits), the 16 a VR of SH may have."""
        return "A" + _text(_mac(self._accession, patient_domain, original), 15)

    def date_shift(self, patient_domain: str, patient_id: str) -> timedelta:
        """How far all dates of a patient move: back by 1 to 3650 days, uniform over every second between."""
        seconds = (MAX_SHIFT_DAYS - 1) * _DAY_SECONDS + 1
        drawn = int.from_bytes(_mac(self._date, patient_domain, patient_id), "big") % seconds
        return -timedelta(seconds=_DAY_SECONDS + drawn)

    def seal(self, plaintext: str) -> bytes:
        """Encrypt for the vault: a random nonce and AES-256-GCM, so equal texts give different tokens."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._seal).encrypt(nonce, plaintext.encode("utf-8"), None)

    def unseal(self, token: bytes) -> str:
        """Decrypt what `seal` made.

        Raises:
            ConfigurationError: the token was sealed with another key or has been changed.
        """
        try:
            plaintext = AESGCM(self._seal).decrypt(token[:_NONCE_BYTES], token[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise ConfigurationError(
                "a sealed value does not open with this key; use the key it was made with"
            ) from error
        return plaintext.decode("utf-8")


def is_standard_uid(uid: str) -> bool:
    """Whether the DICOM Standard registers ``uid`` (PS3.6 Annex A), so that it names no instance.

    Besides the registered ones only short components below ``1.2.840.10008`` count (UIDs newer than the dictionary), so
    that no number of a patient can hide there.
    """
    return uid in UID_dictionary or _STANDARD_UID.fullmatch(uid) is not None


def _derive(master_key: bytes, project: str, purpose: str) -> bytes:
    info = f"imaging-pipeline deid 1\0{purpose}\0{project}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master_key)


def _mac(key: bytes, *parts: str) -> bytes:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return hmac.digest(key, b"".join(len(part).to_bytes(8, "big") + part for part in encoded), hashlib.sha256)


def _text(digest: bytes, length: int) -> str:
    number = int.from_bytes(digest, "big")
    return "".join(_ALPHABET[(number >> 5 * position) & 31] for position in range(length))
