"""Tests of imaging_pipeline.tensors."""
