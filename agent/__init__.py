"""The device process: cameras in, detections out."""

__version__ = "0.1.0"
