"""Head scans: whether a face could be reconstructed, and the hook that takes it out.

Owns the judgement by header and the calling of a site's defacer. Contains no defacing of its own.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imaging_pipeline.deid.pixels.header import texts
from imaging_pipeline.errors import ConfigurationError

Defacer = Callable[[NDArray[Any], Dataset], NDArray[np.bool_]]
"""A defacing hook: stored values (frames, rows, columns) and the identified header to a mask of the same shape, True
where the face is. It says what is blanked and cannot write values of its own. It sees one object at a time."""

MODALITIES: Final = frozenset({"CT", "MR", "PT"})
"""Modalities whose slices show the surface of the head."""

_HEAD_PARTS: Final = frozenset(
    {"HEAD", "BRAIN", "SKULL", "FACE", "HEADNECK", "ORBIT", "SINUS", "SINUSES", "JAW", "MAXILLA", "MANDIBLE", "NOSE",
     "EAR", "IAC", "PITUITARY", "TMJ", "WHOLEBODY", "TEMPORALBONE", "PARANASALSINUS"}
)  # fmt: skip
_HEAD_WORDS: Final = re.compile(
    r"head|brain|skull|face|facial|orbit|sinus|crani|cerebr|neuro|kopf|schadel|schädel|hirn|t(ê|e)te|cerveau|crane",
    re.I,
)
_DESCRIPTIONS: Final = ("StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")


def is_face_possible(ds: Dataset) -> bool:
    """Whether slices of the object's series may show a face: a head, or no word on what part of the body it is."""
    if MODALITIES.isdisjoint(texts(ds, "Modality")):
        return False
    parts = [re.sub(r"[^A-Z]", "", text.upper()) for text in texts(ds, "BodyPartExamined")]
    described = " ".join(text for keyword in _DESCRIPTIONS for text in texts(ds, keyword))
    if not _HEAD_PARTS.isdisjoint(parts) or _HEAD_WORDS.search(described):
        return True
    return not any(parts) and "AnatomicRegionSequence" not in ds


def load_defacer(name: str) -> Defacer:
    """The hook called ``module:function``.

    Raises:
        ConfigurationError: when it cannot be imported or called.
    """
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"the defacer {name} cannot be imported; install its package or mend pixels.defacer"
        ) from error
    if not callable(found):
        raise ConfigurationError(f"the defacer {name} is no function; mend pixels.defacer")
    return found  # type: ignore[no-any-return]
