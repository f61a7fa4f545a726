"""Tests of `imaging_pipeline.defs`."""
