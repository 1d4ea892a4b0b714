"""Datasets, crops and the calibration set."""
