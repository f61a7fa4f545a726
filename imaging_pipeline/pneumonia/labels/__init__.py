"""What is said about images: labels from tables, structured reports and views, and the images they are about.

Owns the reading of labels. Where they go is said in `label_import`.
"""
