"""Study pages: a small web front that is drawn by the service, and works without scripts.

Owns what people see in a browser beside the viewer. Objects and pictures come from DICOMweb, rights from the gate.
"""
