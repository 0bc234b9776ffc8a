"""GStreamer pipeline strings. Pure: text in, text out.

Elements with `nv` are NVIDIA's on Jetson (Accelerated GStreamer User Guide): the decoder writes
NVMM memory, `nvvidconv` copies it to system memory as BGRx, `videoconvert` drops the fourth byte.
The sink keeps one buffer and drops older ones, so a reader that is late gets the newest frame.
"""

from __future__ import annotations

from typing import Literal

Codec = Literal["auto", "h264", "h265", "mjpeg"]

TO_BGR = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
LIVE_SINK = "appsink drop=true max-buffers=1 sync=false"
FILE_SINK = "appsink drop=false max-buffers=4 sync=false"

DECODERS = {
    "h264": "h264parse ! nvv4l2decoder",
    "h265": "h265parse ! nvv4l2decoder",
    "mjpeg": "jpegparse ! nvv4l2decoder mjpeg=1",
    "auto": "decodebin",
}
DEPAYLOADERS = {"h264": "rtph264depay", "h265": "rtph265depay", "mjpeg": "rtpjpegdepay"}


def quoted(value: str) -> str:
    """A property value in quotes: cameras' URLs hold characters that GStreamer would read."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rtsp(url: str, codec: Codec, transport: Literal["tcp", "udp"], timeout_s: float) -> str:
    """An RTSP stream through the hardware decoder; `decodebin` finds it where codec is auto."""
    source = (
        f"rtspsrc location={quoted(url)} protocols={transport} latency=100 drop-on-latency=true "
        f"tcp-timeout={int(timeout_s * 1e6)} timeout={int(timeout_s * 1e6)}"
    )
    chain = DECODERS[codec] if codec == "auto" else f"{DEPAYLOADERS[codec]} ! {DECODERS[codec]}"
    return f"{source} ! {chain} ! {TO_BGR} ! {LIVE_SINK}"


def file(path: str, codec: Codec) -> str:
    """A video file through the hardware decoder, without loss."""
    chain = DECODERS[codec] if codec == "auto" else f"qtdemux ! {DECODERS[codec]}"
    return f"filesrc location={quoted(path)} ! {chain} ! {TO_BGR} ! {FILE_SINK}"


def csi(sensor: int, width: int, height: int, fps: float) -> str:
    """A CSI camera through the image signal processor (`nvarguscamerasrc`)."""
    rate = f"{round(fps * 1000)}/1000" if fps % 1 else f"{int(fps)}/1"
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate},format=NV12 ! "
        f"{TO_BGR} ! {LIVE_SINK}"
    )
