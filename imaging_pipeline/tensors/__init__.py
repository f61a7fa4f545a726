"""Tensors: rendered images of one size and dtype in Arrow shards, split by patient, read by PyTorch without a copy.

Only `dataset` imports torch; import it lazily.
"""
