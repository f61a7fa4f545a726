"""Pictures of public collections (PNG, JPEG with a table) as DICOM objects.

Owns the reading of picture files and of the tables beside them, and the headers made from both. Knows no lake, no
labels and no settings; what a picture shows is not looked at.
"""
