"""What a DICOM object is: its header as DICOM JSON text, its text values as Python values."""
