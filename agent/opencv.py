"""Says what to do where OpenCV cannot be imported.

OpenCV is required but comes from different places; see docs/adr/0004-opencv-is-an-extra.md.
"""

from __future__ import annotations

import importlib

from agent.errors import AgentError

ADVICE = (
    "on a Jetson use JetPack's own (an environment made with `--system-site-packages`), elsewhere "
    "`pip install 'vigia-agent[opencv]'`"
)

NUMPY_ADVICE = (
    "this OpenCV was built for NumPy 1, as JetPack 6's is; `pip install 'numpy<2'` beside it"
)


def explain(error: ImportError) -> AgentError:
    """What a failed import means and what to do."""
    try:
        importlib.import_module("cv2")
    except ImportError as opencv:
        text = str(opencv)
        if "numpy" in text or "_ARRAY_API" in text:
            return AgentError(f"OpenCV cannot be used: {text}; {NUMPY_ADVICE}")
        return AgentError(f"OpenCV cannot be used: {text}; {ADVICE}")
    return AgentError(f"{error}; install Vigia again: pip install vigia-agent")
