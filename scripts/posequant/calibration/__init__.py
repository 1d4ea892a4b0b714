"""Calibration: from crops to the table of scales by which a network is quantized to INT8."""
