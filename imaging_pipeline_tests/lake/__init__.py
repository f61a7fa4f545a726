"""Tests of `imaging_pipeline.lake`."""
