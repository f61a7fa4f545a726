"""Keyed pseudonyms: the same original gives the same pseudonym everywhere the key is, and nothing without it.

Owns the derivation of a project's keys and every keyed function of the package. Contains no DICOM parsing, no storage
and no default key: a key is always given by the caller.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import string
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydicom._uid_dict import UID_dictionary

from imaging_pipeline.deid.ff1 import FF1, MIN_DOMAIN
from imaging_pipeline.errors import ConfigurationError

MIN_KEY_BYTES: Final = 32
"""Shortest master key that is accepted: 256 bits."""

MIN_DISTINCT_BYTES: Final = 8
"""A master key with fewer different bytes is refused as a placeholder: 32 random bytes have 30 on average, 64 random
hexadecimal digits 15.7; fewer than 8 does not happen by chance (p < 1e-15)."""

MIN_SHIFT_DAYS: Final = 30
"""Dates move back by so many days at least: one that has moved by a few says nearly what it said."""

MAX_SHIFT_DAYS: Final = 3650
"""And by this many days at most."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DAY_SECONDS: Final = 86_400
_NONCE_BYTES: Final = 12
_CONTEXT_GROUP: Final = re.compile(r"1\.2\.840\.10008\.6\.1\.[1-9]\d{0,3}")
_PURPOSES: Final = ("uid", "patient", "accession", "date", "seal", "token", "patient ff1", "accession ff1")
_KEY_ID: Final = "key id"
_LIKE_PATIENT: Final = re.compile(f"P[{_ALPHABET}]{{16}}")
_LIKE_ACCESSION: Final = re.compile(f"A[{_ALPHABET}]{{15}}")
_FORMAT: Final = re.compile(r"[A-Za-z0-9 ._/-]{1,64}")
"""Identifiers that FF1 may encrypt: letters and digits, with separators that stay in their places."""
_CASES: Final[tuple[tuple[str, Callable[[str], bool]], ...]] = (
    (string.digits, lambda text: not _has(text, string.ascii_letters)),
    (
        string.digits + string.ascii_uppercase,
        lambda text: _has(text, string.ascii_uppercase) and not _has(text, string.ascii_lowercase),
    ),
    (
        string.digits + string.ascii_lowercase,
        lambda text: _has(text, string.ascii_lowercase) and not _has(text, string.ascii_uppercase),
    ),
    (
        string.digits + string.ascii_letters,
        lambda text: _has(text, string.ascii_lowercase) and _has(text, string.ascii_uppercase),
    ),
)
"""Alphabets of FF1, each with what tells its texts from those of the others: a pseudonym stays among them."""


class ProjectKeys:
    """The keys of one research project, one per purpose; objects of this class are secrets.

    Keys are derived from the master key by HKDF-SHA256 (RFC 5869) with project, epoch and purpose as context, so that
    two projects, or two epochs of one, have nothing in common.

    Attributes:
        project: name of the research project.
        epoch: how often the keys of the project were changed.
        key_id: stands for master key, project and epoch in evidence; gives nothing of them away.
    """

    __slots__ = ("_keys", "epoch", "key_id", "project")

    def __init__(self, project: str, epoch: int, key_id: str, keys: Mapping[str, bytes]) -> None:
        self.project = project
        self.epoch = epoch
        self.key_id = key_id
        self._keys = dict(keys)

    @classmethod
    def derive(cls, master_key: bytes, project: str, epoch: int = 0) -> ProjectKeys:
        """Derive the keys of ``project``.

        Args:
            master_key: at least 32 bytes from a random source.
            project: name of the research project; another name gives unlinkable pseudonyms.
            epoch: 0, or one more after each change of the project's keys; another epoch gives unlinkable pseudonyms.

        Raises:
            ConfigurationError: the key is too short or obviously not random, the project has no name, or the epoch is
                negative.
        """
        if len(master_key) < MIN_KEY_BYTES:
            raise ConfigurationError(f"the master key has {len(master_key)} bytes; at least {MIN_KEY_BYTES} are needed")
        if len(set(master_key)) < MIN_DISTINCT_BYTES:
            raise ConfigurationError("the master key repeats a few bytes; make one with a random number generator")
        if not project or project != project.strip():
            raise ConfigurationError("the project needs a name without blanks around it; it is part of every pseudonym")
        if epoch < 0:
            raise ConfigurationError("the epoch of the keys is a whole number, 0 or more")
        keys = {purpose: _derive(master_key, project, epoch, purpose) for purpose in _PURPOSES}
        return cls(project, epoch, _derive(master_key, project, epoch, _KEY_ID)[:8].hex(), keys)

    def __repr__(self) -> str:
        return f"ProjectKeys(project={self.project!r}{f', epoch={self.epoch}' if self.epoch else ''})"

    def uid(self, original: str) -> str:
        """The research UID of ``original``: ``2.25.`` and a 128-bit keyed hash (PS3.5 B.2), at most 44 characters.

        UIDs the DICOM Standard registers (SOP classes, transfer syntaxes, coding schemes) are returned unchanged.
        """
        if is_standard_uid(original):
            return original
        return f"2.25.{int.from_bytes(_mac(self._keys['uid'], original)[:16], 'big')}"

    def patient_id(self, patient_domain: str, patient_id: str, *, reversible: bool = False) -> str:
        """The pseudonym of a patient: ``P`` and 16 characters (80 bits), as Patient ID and as Patient's Name.

        Args:
            patient_domain: who gave the identifier its meaning.
            patient_id: the original.
            reversible: encrypt it with FF1 instead (NIST SP 800-38G), so that length, case and separators stay and the
                key holder can go back by `original_patient_id`. An identifier of other characters, or one of a domain
                of less than 10^6 texts, gets the keyed pseudonym all the same; the vault has its original.
        """
        keyed = "P" + _text(_mac(self._keys["patient"], patient_domain, patient_id), 16)
        if not reversible:
            return keyed
        return self._transformed("patient ff1", patient_domain, patient_id, _LIKE_PATIENT, back=False) or keyed

    def original_patient_id(self, patient_domain: str, pseudonym: str) -> str | None:
        """What FF1 made ``pseudonym`` from; None for a keyed pseudonym, of which only the vault knows the original."""
        return self._transformed("patient ff1", patient_domain, pseudonym, _LIKE_PATIENT, back=True)

    def accession_number(self, patient_domain: str, original: str, *, reversible: bool = False) -> str:
        """The pseudonym of an accession number: ``A`` and 15 characters (75 bits), the 16 a VR of SH may have.

        Args:
            patient_domain: who gave the patient's identifiers their meaning.
            original: the original.
            reversible: as `patient_id`.
        """
        keyed = "A" + _text(_mac(self._keys["accession"], patient_domain, original), 15)
        if not reversible or len(original) > len(keyed):
            return keyed
        return self._transformed("accession ff1", patient_domain, original, _LIKE_ACCESSION, back=False) or keyed

    def original_accession_number(self, patient_domain: str, pseudonym: str) -> str | None:
        """As `original_patient_id`, of an accession number."""
        return self._transformed("accession ff1", patient_domain, pseudonym, _LIKE_ACCESSION, back=True)

    def date_shift(self, patient_domain: str, patient_id: str) -> timedelta:
        """How far all dates of a patient move: back by 30 to 3650 days, uniform over every second between."""
        seconds = (MAX_SHIFT_DAYS - MIN_SHIFT_DAYS) * _DAY_SECONDS + 1
        drawn = int.from_bytes(_mac(self._keys["date"], patient_domain, patient_id), "big") % seconds
        return -timedelta(days=MIN_SHIFT_DAYS, seconds=drawn)

    def token(self, *parts: str) -> str:
        """32 hexadecimal digits that stand for some texts where these may not be named; nobody else can make them."""
        return _mac(self._keys["token"], *parts)[:16].hex()

    def _transformed(
        self, purpose: str, patient_domain: str, text: str, keyed: re.Pattern[str], *, back: bool
    ) -> str | None:
        """``text`` encrypted or decrypted, or None when it is not in the domain of FF1.

        Texts of the same characters and separators are a set of their own, without those that look like a keyed
        pseudonym. What leaves the set is encrypted again until it is back (cycle walking): so each text of it has one
        pseudonym in it, and each pseudonym one text.
        """
        chosen = next((alphabet for alphabet, fits in _CASES if fits(text)), "")
        places = [place for place, char in enumerate(text) if char in chosen]
        if not _FORMAT.fullmatch(text) or keyed.fullmatch(text) or len(chosen) ** len(places) < MIN_DOMAIN:
            return None
        fits = dict(_CASES)[chosen]
        cipher = FF1(self._keys[purpose], len(chosen))
        step = cipher.decrypt if back else cipher.encrypt
        pattern = "".join("0" if char in chosen else char for char in text)
        tweak = b"\0".join((patient_domain.encode("utf-8", "surrogatepass"), pattern.encode("ascii")))
        made = list(text)
        while True:
            for place, numeral in zip(
                places, step([chosen.index(made[place]) for place in places], tweak), strict=True
            ):
                made[place] = chosen[numeral]
            result = "".join(made)
            if fits(result) and not keyed.fullmatch(result):
                return result

    def seal(self, plaintext: str) -> bytes:
        """Encrypt for the vault: a random nonce and AES-256-GCM, so equal texts give different tokens."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._keys["seal"]).encrypt(nonce, plaintext.encode("utf-8"), None)

    def unseal(self, token: bytes) -> str:
        """Decrypt what `seal` made.

        Raises:
            ConfigurationError: the token was sealed with another key or has been changed.
        """
        try:
            plaintext = AESGCM(self._keys["seal"]).decrypt(token[:_NONCE_BYTES], token[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise ConfigurationError(
                "a sealed value does not open with this key; use the key it was made with"
            ) from error
        return plaintext.decode("utf-8")


def is_standard_uid(uid: str) -> bool:
    """Whether the DICOM Standard registers ``uid`` (PS3.6 Annex A), so that it names no instance.

    Context groups (PS3.16), which the dictionary does not have, count by their form. Any other UID below the root of
    the standard is replaced: a number of a patient could be hidden in it.
    """
    return uid in UID_dictionary or _CONTEXT_GROUP.fullmatch(uid) is not None


def _derive(master_key: bytes, project: str, epoch: int, purpose: str) -> bytes:
    context = f"imaging-pipeline deid 2\0{purpose}\0{epoch}\0{project}" if epoch else ""
    info = (context or f"imaging-pipeline deid 1\0{purpose}\0{project}").encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(master_key)


def _has(text: str, characters: str) -> bool:
    return any(char in characters for char in text)


def _mac(key: bytes, *parts: str) -> bytes:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return hmac.digest(key, b"".join(len(part).to_bytes(8, "big") + part for part in encoded), hashlib.sha256)


def _text(digest: bytes, length: int) -> str:
    number = int.from_bytes(digest, "big")
    return "".join(_ALPHABET[(number >> 5 * position) & 31] for position in range(length))
