"""The arguments by which infer, check and doctor name an artifact and a backend alike."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser

from runtime.formats import FORMATS

BACKENDS = [name for kind in FORMATS for name in kind.backends]
PROVIDERS = ("cpu", "cuda", "tensorrt")


def add_artifact_arguments(parser: ArgumentParser, *, positional: bool = False) -> None:
    """Add --artifact, --backend and --provider; with `positional`, ARTIFACT may be given alone."""
    where = parser.add_mutually_exclusive_group()
    if positional:  # suppressed, or its default would replace what --artifact says
        where.add_argument(
            "artifact", nargs="?", metavar="ARTIFACT", default=SUPPRESS, help="as --artifact"
        )
    where.add_argument(
        "--artifact",
        metavar="F",
        help="a file, or a folder of them (default: artifacts/aminet-edge, else the packed model)",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="B",
        help=f"{', '.join(BACKENDS)}; auto: the fastest that passes its probes (default: auto)",
    )
    parser.add_argument(
        "--provider", choices=PROVIDERS, help="what ONNX Runtime computes with (default: cpu)"
    )
