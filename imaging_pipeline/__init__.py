"""A data-asset pipeline for medical images: raw DICOM objects to queryable tables, tensors and predictions."""

__version__ = "0.1.0"
