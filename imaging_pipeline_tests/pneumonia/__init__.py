"""Tests of imaging_pipeline.pneumonia."""
