"""Tests of what a DICOM object is."""
