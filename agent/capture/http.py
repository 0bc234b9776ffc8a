"""HTTP cameras: an MJPEG stream, or a snapshot URL that is asked again and again."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import cv2
import numpy as np

from agent.errors import CaptureError
from agent.secrets import mask_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.config import CameraConfig

MAX_PICTURE_BYTES = 32 * 2**20
"""A larger part of a stream is no picture of a camera."""

MAX_LINE_BYTES = 8192
MAX_HEADER_LINES = 64

SNAPSHOT_FPS = 2.0
"""How often a snapshot is asked for if `fps` does not say."""

READ_BYTES = 65_536


class MjpegDevice:
    """Pictures of a `multipart/x-mixed-replace` response (the de facto MJPEG over HTTP)."""

    fps = 0.0
    codec = "MJPG"

    def __init__(self, response: http.client.HTTPResponse, boundary: bytes, what: str) -> None:
        self._response = response
        self._boundary = boundary
        self._what = what
        # A part without a length ends where the next boundary was read.
        self._at_boundary = False

    def read(self) -> NDArray[Any] | None:
        """See `agent.capture.base.Device`."""
        try:
            return _picture(self._part(), self._what)
        except (OSError, http.client.HTTPException) as error:
            raise CaptureError(f"{self._what}: the stream was lost: {error}") from error

    def close(self) -> None:
        """See `agent.capture.base.Device`."""
        self._response.close()

    def _line(self) -> bytes:
        line = self._response.readline(MAX_LINE_BYTES)
        if not line:
            raise CaptureError(f"{self._what}: the camera ended the stream")
        return line.strip()

    def _part(self) -> bytes:
        """Bytes of the next part; told by Content-Length, or else found before the boundary."""
        while not self._at_boundary and not self._line().startswith(self._boundary):
            pass
        self._at_boundary = False
        length = None
        for _ in range(MAX_HEADER_LINES):
            line = self._line()
            if not line:
                break
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length" and value.strip().isdigit():
                length = int(value)
        else:
            raise CaptureError(f"{self._what}: a part of the stream has no end of headers")
        if length is None:
            return self._until_boundary()
        if length > MAX_PICTURE_BYTES:
            raise CaptureError(f"{self._what}: a picture of {length} bytes is too large")
        content = self._response.read(length)
        if len(content) < length:
            raise CaptureError(f"{self._what}: the camera ended the stream")
        return content

    def _until_boundary(self) -> bytes:
        content = bytearray()
        while len(content) <= MAX_PICTURE_BYTES:
            line = self._response.readline(READ_BYTES)
            if not line or line.startswith(self._boundary):
                self._at_boundary = bool(line)
                return bytes(content)
            content += line
        raise CaptureError(f"{self._what}: a part of the stream is too large")


class SnapshotDevice:
    """Asks a URL for a picture at a steady rate."""

    codec = "JPEG"

    def __init__(self, client: _Client, fps: float) -> None:
        self.fps = fps
        self._client = client
        self._due = time.monotonic()

    def read(self) -> NDArray[Any] | None:
        """See `agent.capture.base.Device`."""
        wait_s = self._due - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        self._due = max(self._due, time.monotonic() - 1 / self.fps) + 1 / self.fps
        with self._client.get() as response:
            try:
                content = response.read(MAX_PICTURE_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                raise CaptureError(f"{self._client.what}: {error}") from error
        return _picture(content, self._client.what)

    def close(self) -> None:
        """See `agent.capture.base.Device`."""


class _Client:
    """Asks one URL, with the user and password that stand in it, basic or digest."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.what = mask_url(url)
        self._timeout_s = timeout_s
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit(parts._replace(netloc=host))
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            passwords.add_password(None, self._url, user, password)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
        )

    def get(self) -> http.client.HTTPResponse:
        """Ask.

        Raises:
            CaptureError: no answer, or not a good one.
        """
        try:
            return self._opener.open(self._url, timeout=self._timeout_s)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            error.close()
            known = {401: "wrong user or password", 404: "the camera has nothing at this path"}
            reason = known.get(error.code, f"the camera answers {error.code} {error.reason}")
            raise CaptureError(f"{self.what}: {reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", None) or error
            raise CaptureError(f"{self.what}: {cause}") from error


def open_http(config: CameraConfig) -> MjpegDevice | SnapshotDevice:
    """Ask the URL once and see what it is.

    Raises:
        CaptureError: no answer, or neither a picture nor an MJPEG stream.
    """
    client = _Client(config.source, config.stall_timeout_s)
    response = client.get()
    kind = response.headers.get_content_type()
    if kind == "multipart/x-mixed-replace":
        boundary = response.headers.get_param("boundary")
        if isinstance(boundary, str):
            # Some cameras write the dashes into the parameter, some do not.
            mark = b"--" + boundary.strip('"').lstrip("-").encode("ascii", "replace")
            return MjpegDevice(response, mark, client.what)
    response.close()
    if kind.startswith("image/"):
        return SnapshotDevice(client, config.fps or SNAPSHOT_FPS)
    raise CaptureError(
        f"{client.what}: the answer is {kind}, neither a picture nor an MJPEG stream; for another "
        "kind of stream say `kind:`"
    )


def _picture(content: bytes, what: str) -> NDArray[Any]:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if pixels is None:
        raise CaptureError(f"{what}: a picture of {len(content)} bytes cannot be decoded")
    return pixels
