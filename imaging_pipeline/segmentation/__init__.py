"""Lungs on frontal chest films: a small network, what it is trained on, and its masks as DICOM segmentations.

Everything here works with plain arrays, files and rows; torch and highdicom are imported by the modules that need
them, which are imported lazily.
"""
