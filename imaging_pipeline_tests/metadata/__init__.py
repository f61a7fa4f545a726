"""Tests of `imaging_pipeline.metadata`."""
