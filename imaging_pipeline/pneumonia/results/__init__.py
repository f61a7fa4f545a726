"""What the model said of an image as DICOM objects of its study: a report and a picture with the heat map."""
