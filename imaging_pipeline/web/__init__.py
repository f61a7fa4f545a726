"""What people and programs reach over HTTP: DICOMweb, the viewer, study pages, and who may see what."""
