"""Objects in S3 and S3-compatible stores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class S3Access:
    """How a store is reached. Holds no secret: credentials come from the environment, a profile or the machine's role.

    Attributes:
        endpoint_url: of an S3-compatible server; None: AWS.
        region: None: the environment's.
        profile: a profile of the shared AWS configuration; None: the default chain.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
