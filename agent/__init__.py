"""The device process: cameras in, detections out."""

import os

__version__ = "0.1.0"

# OpenCV reads these once, when it is first imported. It and FFmpeg would write what they open to
# standard error, passwords included; what goes wrong reaches people through our own errors.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
