"""Tests of `imaging_pipeline.objects`."""
