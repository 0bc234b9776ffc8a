from __future__ import annotations

import pytest

from agent.capture import pipelines


def elements(pipeline: str) -> list[str]:
    return [part.strip().split()[0] for part in pipeline.split(" ! ")]


def test_rtsp_goes_through_the_hardware_decoder_to_a_sink_that_keeps_the_newest():
    text = pipelines.rtsp("rtsp://u:p@h/s?a=1&b=2", "h264", "tcp", 10)
    assert elements(text) == [
        "rtspsrc", "rtph264depay", "h264parse", "nvv4l2decoder", "nvvidconv",
        "video/x-raw,format=BGRx", "videoconvert", "video/x-raw,format=BGR", "appsink",
    ]  # fmt: skip
    assert 'location="rtsp://u:p@h/s?a=1&b=2"' in text
    assert "protocols=tcp" in text
    assert "tcp-timeout=10000000" in text
    assert text.endswith("appsink drop=true max-buffers=1 sync=false")


@pytest.mark.parametrize("codec", ["h265", "mjpeg"])
def test_other_codecs_have_their_own_depayloader(codec):
    assert elements(pipelines.rtsp("rtsp://h", codec, "udp", 1))[1] == pipelines.DEPAYLOADERS[codec]


def test_an_unknown_codec_is_left_to_decodebin():
    assert elements(pipelines.rtsp("rtsp://h", "auto", "tcp", 1))[1] == "decodebin"
    assert elements(pipelines.file("/v.mp4", "auto"))[1] == "decodebin"


def test_files_lose_nothing():
    assert "drop=false" in pipelines.file("/v.mp4", "h264")


def test_a_quote_in_a_url_cannot_end_the_property():
    text = pipelines.rtsp('rtsp://h/" ! filesink location="/x', "auto", "tcp", 1)
    assert '\\" ! filesink location=\\"/x"' in text


@pytest.mark.parametrize(("fps", "rate"), [(30.0, "30/1"), (29.97, "29970/1000")])
def test_a_csi_camera_is_asked_for_its_mode(fps, rate):
    text = pipelines.csi(1, 1280, 720, fps)
    assert text.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280")
    assert f"framerate={rate}" in text
