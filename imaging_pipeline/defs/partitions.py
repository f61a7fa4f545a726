"""The one partition dimension: the arrival batch."""

from __future__ import annotations

import dagster as dg

arrival_batches = dg.DynamicPartitionsDefinition(name="arrival_batch")
"""Keys ``YYYY-MM-DD.NNNNN``. Study dates are no partition key: they are PHI, arrive late and skew."""
