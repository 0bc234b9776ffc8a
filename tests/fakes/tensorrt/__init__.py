"""A stand-in for NVIDIA's `tensorrt` with exactly the names of one release, run by ONNX Runtime.

With `tests/fakes` in PYTHONPATH and VIGIA_FAKE_TENSORRT=10.3.0, `import tensorrt` gives that
release, also in a child process. Inside a test, `tests.fakes.tensorrt.release.make("10.3.0")`.
"""

import os
import sys

if __name__ == "tensorrt" and "VIGIA_FAKE_TENSORRT" in os.environ:
    from .release import make

    # The strict module takes this one's place: nothing but the release's names can be seen.
    sys.modules["tensorrt"] = make(os.environ["VIGIA_FAKE_TENSORRT"])
