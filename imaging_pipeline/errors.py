"""Every error of the package and every reason an object can be refused for.

Owns the exception tree, the stable reason codes and the issue record. Contains no DICOM knowledge and no
input or output. No message, field or representation made here may carry a patient identifier: objects are
named by their key, elements by their tag path, values never.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Stage(enum.StrEnum):
    """Where in the chain an issue was found."""

    LIST = "LIST"
    FETCH = "FETCH"
    PARSE = "PARSE"
    MAP = "MAP"
    DEID = "DEID"
    PIXEL = "PIXEL"
    LOAD = "LOAD"


class Severity(enum.StrEnum):
    """How much an issue costs: ERROR loses the object, WARNING loses a value, INFO loses nothing."""

    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"


class Reason(enum.StrEnum):
    """Stable codes of what can be wrong with one object. Codes are never renamed."""

    EMPTY = "empty"
    NOT_DICOM = "not_dicom"
    ARCHIVE = "archive"
    ARCHIVE_UNREADABLE = "archive_unreadable"
    ARCHIVE_NESTED = "archive_nested"
    GONE = "gone"
    ACCESS_DENIED = "access_denied"
    UNAVAILABLE = "unavailable"
    UNREADABLE = "unreadable"
    CHANGED_WHILE_READ = "changed_while_read"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    MISSING_PREAMBLE = "missing_preamble"
    MISSING_FILE_META = "missing_file_meta"
    WRONG_TRANSFER_SYNTAX = "wrong_transfer_syntax"
    MISSING_UID = "missing_uid"
    UID_INVALID = "uid_invalid"
    VR_INVALID = "vr_invalid"
    VM_INVALID = "vm_invalid"
    MISSING_TYPE1 = "missing_type1"
    DUPLICATE_ITEM = "duplicate_item"
    CHARSET_UNKNOWN = "charset_unknown"
    DUPLICATE_CONTENT = "duplicate_content"
    CONFLICT_CONTENT = "conflict_content"
    PATIENT_CONFLICT = "patient_conflict"
    WORKER_CRASHED = "worker_crashed"
    SOP_CLASS_NOT_RELEASED = "sop_class_not_released"
    PIXEL_REVIEW_REQUIRED = "pixel_review_required"
    NOT_DEIDENTIFIABLE = "not_deidentifiable"
    RESIDUAL_IDENTIFIER = "residual_identifier"
    TRANSFER_SYNTAX_UNSUPPORTED = "transfer_syntax_unsupported"
    PIXEL_UNDECODABLE = "pixel_undecodable"
    PIXEL_UNSUPPORTED = "pixel_unsupported"


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with one object.

    Attributes:
        reason: the stable code.
        stage: where it was found.
        severity: what it costs.
        dicom_path: element path as ``ggggeeee[item].ggggeeee``, or None when it is about the whole object.
        message: what was expected and what came, in words, without any value of the object.
    """

    reason: Reason
    stage: Stage
    severity: Severity = Severity.ERROR
    dicom_path: str | None = None
    message: str = ""


class ImagingError(Exception):
    """Root of all errors raised on purpose by this package."""


class ConfigurationError(ImagingError):
    """A setting, key or profile is missing or wrong; the message says what to do. A rerun alone cannot help."""


class PoisonInput(ImagingError):
    """One object cannot be processed, now or ever: the same bytes fail the same way. Becomes an issue row."""

    def __init__(self, reason: Reason, message: str = "", *, dicom_path: str | None = None) -> None:
        super().__init__(reason, message, dicom_path)
        self.reason = reason
        self.message = message
        self.dicom_path = dicom_path

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else str(self.reason)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_poison, (self.reason, self.message, self.dicom_path)

    def issue(self, stage: Stage) -> Issue:
        """The issue row this refusal becomes when met at ``stage``."""
        return Issue(self.reason, stage, Severity.ERROR, self.dicom_path, self.message)


class TransientError(ImagingError):
    """Infrastructure failed (a store, a lock, a server): the same call may succeed later."""


def _rebuild_poison(reason: Reason, message: str, dicom_path: str | None) -> PoisonInput:
    return PoisonInput(reason, message, dicom_path=dicom_path)
