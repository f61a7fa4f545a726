"""The pneumonia model: labels, network, training, evaluation, tracking and prediction.

Owns everything between a set of image tensors and a score with its evidence. Contains no Dagster, no DICOM and
no storage of tensors: images come in as tensors or arrays, scores and reports go out. Importing this package
loads neither torch nor MLflow.
"""
