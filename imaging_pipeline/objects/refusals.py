"""What the errors of file systems and archives mean for one object, and how a local file is opened.

No message made here holds a URI, a path or a name.
"""

from __future__ import annotations

import errno
import lzma
import os
import stat
import zipfile
import zlib
from pathlib import Path

from imaging_pipeline.errors import PoisonInput, Reason

DAMAGED = (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)
"""What reading an object's bytes can raise; :func:`refusal` gives our error for it."""

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_DENIED = frozenset({errno.EACCES, errno.EPERM})
_NO_ANSWER = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN})


def refusal(error: Exception) -> PoisonInput:
    """GONE, ACCESS_DENIED, UNAVAILABLE or UNREADABLE, for one of :data:`DAMAGED`."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _GONE:
        return PoisonInput(Reason.GONE, "it is no longer there; the next listing takes it out")
    if number in _DENIED:
        return PoisonInput(Reason.ACCESS_DENIED, "it may not be read: mend its permissions, and run the batch again")
    if number in _NO_ANSWER:
        return PoisonInput(Reason.UNAVAILABLE, "its file system does not answer; run the batch again when it does")
    return PoisonInput(Reason.UNREADABLE, "its bytes cannot be read to the end")


def open_plain(path: Path) -> int:
    """A descriptor of a plain file, to be read.

    Raises:
        OSError: it cannot be opened.
        PoisonInput: GONE when it is no plain file.
    """
    # Without O_NONBLOCK a pipe that has taken the file's place would be waited for, for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PoisonInput(Reason.GONE, "it is no plain file any more; the next listing takes it out")
    return descriptor
