"""Tests of `imaging_pipeline.catalog`."""
