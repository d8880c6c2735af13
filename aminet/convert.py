"""Make a checkpoint of a state dict: `python -m aminet.convert F.pth --model aminet-edge --out G`.

Takes what torch.save wrote (tensors only: no code in the file is run) and safetensors files. The
weights may lie under a key, as trainers save them, and their names may have the prefixes of
DataParallel (module.) and torch.compile (_orig_mod.). Averaged weights (EMA) are preferred.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aminet.config import find_config
from runtime.errors import EdgeError, needs, run_command

if TYPE_CHECKING:
    from torch import Tensor

AVERAGED = ("params_ema", "ema", "model_ema", "ema_model", "ema_state_dict", "average")
PLAIN = (
    "state_dict",
    "model_state_dict",
    "params",
    "model",
    "net",
    "network",
    "generator",
    "net_g",
)
PREFIXES = ("module.", "_orig_mod.", "generator.")  # of DataParallel, torch.compile, a GAN's parts


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """The checkpoint written, and what it was made of: a key of the file, or "" for the whole."""

    checkpoint: str
    model: str
    weights_of: str
    tensors: int


def convert(path: str | Path, model: str, out: str | Path) -> ConvertedCheckpoint:
    """Write the weights as a checkpoint of `model`; EdgeError where they do not fit it."""
    config, path = find_config(model), Path(path)
    with needs("train"):
        from aminet.checkpoint import Checkpoint, build_model, save_checkpoint

    if Path(out).resolve() == path.resolve():
        raise EdgeError(f"{out}: is the file to convert; give another --out")
    key, state = pick_weights(_read(path), str(path))
    state = {strip_prefixes(name): value for name, value in state.items()}
    network = build_model(Checkpoint(config, model, state, "", path=path))
    save_checkpoint(out, network, config, name=model, training={"converted_from": path.name})
    return ConvertedCheckpoint(str(out), model, key, len(state))


def pick_weights(content: Mapping[str, Any], name: str) -> tuple[str, dict[str, "Tensor"]]:
    """The key of the weights and their tensors: averaged ones first, then plain, then the whole."""
    from torch import Tensor

    for key in (*AVERAGED, *PLAIN, ""):
        found = content.get(key) if key else content
        if isinstance(found, Mapping):
            tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)}
            if tensors:
                return key, _float32(tensors)
    raise EdgeError(f"{name}: holds no state dict; save one: torch.save(network.state_dict(), F)")


def strip_prefixes(name: str) -> str:
    """The parameter's own name, without what wrappers put before it."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name.replace("._orig_mod.", ".")


def _float32(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _read(path: Path) -> Mapping[str, Any]:
    from aminet.checkpoint import is_torch_file
    from aminet.pretrained import MAX_BYTES, load_torch, read_state
    from runtime.atomic import read_bytes

    if not path.is_file():
        raise EdgeError(f"{path}: no such file, expected a state dict")
    if is_torch_file(path):
        return load_torch(read_bytes(path, MAX_BYTES), str(path))
    return _by_part(read_state(path))


def _by_part(state: Mapping[str, "Tensor"]) -> Mapping[str, Any]:
    """The state of a run of ours holds "average.<name>": the averaged weights under one key."""
    average = {k.removeprefix("average."): v for k, v in state.items() if k.startswith("average.")}
    return {"average": average} if average else state


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aminet.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, metavar="F", help="a state dict")
    parser.add_argument("--model", required=True, help="whose weights they are")
    parser.add_argument("--out", type=Path, required=True, metavar="G.safetensors")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _run(given: argparse.Namespace) -> int:
    result = convert(given.weights, given.model, given.out)
    of = f" ({result.weights_of})" if result.weights_of else ""
    line = f"{result.checkpoint}: {result.tensors} tensors of {given.weights}{of}"
    print(json.dumps(asdict(result)) if given.json else line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
