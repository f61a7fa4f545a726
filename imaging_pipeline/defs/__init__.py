"""Dagster: the only package that imports it. Assets resolve a partition, call one domain function, report."""
