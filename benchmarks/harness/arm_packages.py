"""What an emulated ARM computer needs, from packages: QEMU, Debian's Python for arm64, and wheels.

All but QEMU lies in a folder of the caller's: the system's own packages are not touched, and no
root is needed. QEMU comes as a Debian package where this is run as root.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.atomic import sha256_bytes
from runtime.errors import EXIT_MISSING, EdgeError

QEMU = "qemu-aarch64-static"
QEMU_PACKAGE = "qemu-user-static"
GUEST_PACKAGES = ("python3", "libstdc++6", "libgomp1")
# From the package index; the runtimes only where they are installed here, in the same versions.
WHEELS = ("numpy", "pillow", "onnxruntime", "ai-edge-litert", "backports-strenum", "ncnn")
PLATFORMS = (
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_27",
    "manylinux_2_28",
    "manylinux_2_34",
)
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
STEP_S, DOWNLOAD_S = 120, 600


def bring_qemu() -> None:
    """Install QEMU if it is missing and this is Debian and root; EdgeError with status 5 else."""
    if shutil.which(QEMU):
        return
    command = f"apt-get install {QEMU_PACKAGE}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise EdgeError(f"{QEMU} is not installed; as root: {command}", EXIT_MISSING)
    run_tool(["apt-get", "update", "-qq"], "Debian's list of packages")
    options = ["-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    run_tool(["apt-get", "install", *options, QEMU_PACKAGE], QEMU, DOWNLOAD_S)


def bring_userland(folder: Path) -> Path:
    """Debian's Python for arm64 under `folder`, of the release that this Debian is."""
    sources = next((path for path in SOURCES if path.is_file()), None)
    if sources is None or "debian" not in sources.read_text() or not shutil.which("dpkg"):
        raise EdgeError("Debian's packages are needed, and this is no Debian", EXIT_MISSING)
    userland = folder / f"userland-{sha256_bytes(sources.read_bytes())[:12]}"
    if userland.is_dir():
        return userland
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        base = Path(work)
        for name in ("state/lists/partial", "cache/archives/partial", "etc", "root"):
            (base / name).mkdir(parents=True)
        (base / "state" / "status").touch()
        shutil.copy(sources, base / "etc")
        apt = ["apt-get", *(word for option in _apt_options(base) for word in ("-o", option))]
        run_tool([*apt, "-qq", "update"], "Debian's list of arm64 packages")
        get = ["-qq", "-y", "--no-install-recommends", "--download-only", "install"]
        run_tool([*apt, *get, *GUEST_PACKAGES], "Debian's Python for arm64", DOWNLOAD_S)
        for package in sorted((base / "cache" / "archives").glob("*.deb")):
            run_tool(["dpkg", "-x", str(package), str(base / "root")], package.name)
        put(base / "root", userland)
    return userland


def _apt_options(base: Path) -> list[str]:
    """apt for another architecture, in folders of its own."""
    return [
        "APT::Architecture=arm64",
        "APT::Architectures=arm64",
        "APT::Sandbox::User=root",
        f"Dir::State={base}/state",
        f"Dir::State::status={base}/state/status",
        f"Dir::Cache={base}/cache",
        f"Dir::Etc::sourcelist={base}/etc/sources.list",
        f"Dir::Etc::sourceparts={base}/etc",
        "Acquire::Retries=1",
        "Acquire::http::Timeout=20",
    ]


def bring_wheels(folder: Path, python: str) -> Path:
    """The packages of WHEELS that are installed here, in the same versions, for arm64.

    `python` is the version of the interpreter that imports them, such as '3.11'.
    """
    wanted = []
    for name in WHEELS:
        try:
            wanted.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    site = folder / f"site-{python}-{sha256_bytes(' '.join(wanted).encode())[:12]}"
    if site.is_dir():
        return site
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    interpreter = ["--python-version", python, "--implementation", "cp"]
    abi = ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        into = ["--dest", work, *platforms, *interpreter, *abi, *wanted]
        run_tool([*pip, *into], f"wheels of {', '.join(wanted)} for arm64", DOWNLOAD_S)
        for wheel in Path(work).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(Path(work, "site"))
        put(Path(work, "site"), site)
    return site


def put(made: Path, place: Path) -> None:
    """Rename a folder to its place, unless another process was there first."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def run_tool(command: Sequence[str], what: str, timeout_s: float = STEP_S) -> str:
    """What a program prints; EdgeError with status 5 if it fails."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=quiet)
    except subprocess.TimeoutExpired as error:
        line = f"{what}: could not be brought in {timeout_s:.0f} s"
        raise EdgeError(line, EXIT_MISSING) from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise EdgeError(f"{what}: could not be brought ({lines[-1]})", EXIT_MISSING)
    return done.stdout
