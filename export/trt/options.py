"""How TensorRT engines are built: checked options, without onnx or TensorRT."""

import re
from dataclasses import dataclass

from runtime.errors import EXIT_USAGE, EdgeError

CAPABILITIES = ("8.6",)  # without a GPU: Ampere, whose engines later GPUs run too
MAX_BATCH = 1024


@dataclass(frozen=True)
class BuildOptions:
    """How to build; EdgeError with status 2 for invalid values.

    `capabilities`: () is that of the GPU here, else CAPABILITIES. `profile`: the smallest,
    optimal and largest batch.
    """

    builder: str = "auto"
    capabilities: tuple[str, ...] = ()
    profile: tuple[int, int, int] = (1, 4, 16)
    workspace_mib: int = 1024
    timeout_s: float = 1800

    def __post_init__(self) -> None:
        least, best, most = self.profile
        if not 1 <= least <= best <= most <= MAX_BATCH:
            raise EdgeError(
                f"--profile {least} {best} {most}: expected 1 <= least <= best <= most"
                f" <= {MAX_BATCH}",
                EXIT_USAGE,
            )
        for capability in self.capabilities:
            if not re.fullmatch(r"\d{1,2}\.\d", capability):
                raise EdgeError(
                    f"--compute-capability {capability}: expected numbers such as 8.6 or 8.6,8.9",
                    EXIT_USAGE,
                )
        if self.workspace_mib < 1 or self.timeout_s <= 0:
            raise EdgeError("--workspace-mib and --timeout-s: expected more than 0", EXIT_USAGE)
