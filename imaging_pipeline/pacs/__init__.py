"""To and from PACS: DIMSE (PS3.7), DICOMweb and Orthanc; what comes lands as files in the folder of a source."""
