"""Whether upscaling files became slower than docs/measured/throughput.json has it.

Compared is how many times as fast all cores are as one session with all threads, in one run:
machines of one kind differ in speed, and their disks do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.baseline import LEAST_TOLERANCE, WIDE
from benchmarks.harness.machine import BUSY_SHARE, background_share
from benchmarks.studies.rates import Throughput, read_throughput
from benchmarks.studies.throughput import Effort, throughput
from runtime.cpu import processor, usable_cores
from runtime.progress import Progress, silent

MEASURED = Path("docs", "measured", "throughput.json")
EFFORT = Effort(faces=300, rounds=3, files_alone=True)
NAME = "infer on all cores"
SAMPLE_SECONDS = 1.0

Measure = Callable[[Path, Effort, Progress], Throughput]


@dataclass(frozen=True)
class ThroughputComparison:
    """`compared` is NAME or nothing; a line each for what is slower, undecided, or to be noted."""

    compared: tuple[str, ...] = ()
    slower: tuple[str, ...] = ()
    not_comparable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_published(path: Path, measured: Path = MEASURED) -> bool:
    """Whether throughput was measured with this file's artifact."""
    return measured.is_file() and Path(read_throughput(measured).artifact) == path


def compare_throughput(
    artifact: Path,
    measured: Path = MEASURED,
    *,
    wide: bool = False,
    progress: Progress = silent,
    measure: Measure = throughput,
) -> ThroughputComparison:
    """Measure again, at least so fast as before less 1.5 times the spread of its turns."""
    stored = read_throughput(measured)
    then, here = stored.all_cores, (processor(), usable_cores())
    if then is None or (stored.machine.processor, stored.machine.cores) != here:
        note = f"throughput is not compared: {measured} is not of {here[1]} cores of {here[0]}"
        return ThroughputComparison(notes=(note,))
    if stored.busy:
        note = f"throughput is not compared: the machine was busy when {measured} was measured"
        return ThroughputComparison(notes=(note,))
    busy = background_share(SAMPLE_SECONDS)
    if busy <= BUSY_SHARE:
        now = measure(artifact, EFFORT, progress)
        busy = now.background_share
        if busy <= BUSY_SHARE and now.all_cores:
            least = then.speedup * (WIDE if wide else 1 - max(LEAST_TOLERANCE, 1.5 * then.spread))
            ours = now.all_cores.speedup
            line = (
                f"{NAME}: {ours:.2f} times as fast as one session, was {then.speedup:.2f}, at least"
                f" {least:.2f}"
            )
            return ThroughputComparison((NAME,), (line,) if ours < least else ())
    undecided = f"{NAME}: not comparable: busy (background processes took {busy:.0%} of the CPU)"
    return ThroughputComparison(not_comparable=(undecided,))
