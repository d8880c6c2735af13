"""One stop for telemetry: what libraries would report is off in every process of the project.

docs/runtime.md lists each library's telemetry with its switch. `disable_telemetry` is called
before a library that has some is imported; the environment hands it on to child processes.
"""

from __future__ import annotations

import os
import sys

# The libraries that report, and what keeps them from it.
SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime from 1.31: a device id, and events of sessions
    "RAY_USAGE_STATS_ENABLED": "0",  # ray: versions, processor and use of a cluster
}
HIDDEN = ("openvino_telemetry",)  # openvino and nncf; without it they take their own stub


def disable_telemetry() -> None:
    """Turn it off for this process and its children, whatever the user's settings are."""
    os.environ.update(SWITCHES)
    for module in HIDDEN:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]
