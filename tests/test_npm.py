"""A package of npm is the expected one, from where npm is configured to look, or an error."""

import base64
import hashlib
import io
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from export import npm
from runtime.errors import EdgeError


def packed(**members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


TARBALL = packed(a=b"first", b=b"second")
PACKAGE = npm.Package(
    "@scope/pack",
    "1.2.3",
    f"sha512-{base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()}",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def registry(home, monkeypatch):
    """A registry on this machine, and the list of what it was asked for."""
    asked = []

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path.endswith("pack-1.2.3.tgz") else 404)
            self.send_header("Content-Length", str(len(TARBALL)))
            self.end_headers()
            self.wfile.write(TARBALL)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/npm/")
        yield asked
        server.shutdown()


def test_a_package_is_downloaded_once(registry, cache):
    assert npm.fetch(PACKAGE) == npm.fetch(PACKAGE) == TARBALL
    assert registry == ["/npm/@scope/pack/-/pack-1.2.3.tgz"]
    (cache / "npm" / "pack-1.2.3.tgz").write_bytes(b"damaged")
    assert npm.fetch(PACKAGE) == TARBALL
    assert len(registry) == 2


def test_another_package_is_refused_and_not_kept(registry, cache, tmp_path):
    other = npm.Package(PACKAGE.name, PACKAGE.version, "sha512-AAAA")
    with pytest.raises(EdgeError, match=r"is not @scope/pack 1\.2\.3, its SHA-512 is another"):
        npm.fetch(other)
    assert not cache.exists()
    path = tmp_path / "pack.tgz"
    path.write_bytes(TARBALL[:-1])
    with pytest.raises(EdgeError, match=r"pack\.tgz: is not @scope/pack"):
        npm.fetch(PACKAGE, [path])


def test_a_tarball_at_hand_needs_no_registry(home, tmp_path):
    path = tmp_path / "pack.tgz"
    path.write_bytes(TARBALL)
    assert npm.fetch(PACKAGE, [path]) == TARBALL


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", r"cannot be downloaded .*npm_config_registry.*--npm-tarball"),
        ("file:///etc", r"is no registry, expected https://"),
    ],
)
def test_a_registry_that_cannot_be_reached_is_named(home, monkeypatch, url, reason):
    monkeypatch.setenv("npm_config_registry", url)
    with pytest.raises(EdgeError, match=reason):
        npm.fetch(PACKAGE)


def test_a_package_that_the_registry_does_not_have_is_named(registry):
    with pytest.raises(EdgeError, match=r"other-1\.tgz: cannot be downloaded \(Not Found\)"):
        npm.fetch(npm.Package("other", "1", PACKAGE.integrity))


def test_the_registry_is_the_one_that_npm_is_configured_for(home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(npm.shutil, "which", lambda name: None)
        with pytest.raises(EdgeError, match="set npm_config_registry"):
            npm.registry()
    if shutil.which("npm"):
        assert npm.registry().startswith("https://")
    (home / ".npmrc").write_text('fund=false\nregistry = "http://from.file/"\n')
    assert npm.registry() == "http://from.file"
    monkeypatch.setenv("npm_config_registry", "http://from.environment")
    assert npm.registry() == "http://from.environment"


def test_members_are_read_from_the_package():
    assert npm.read_members(TARBALL, ["b", "a"]) == {"a": b"first", "b": b"second"}
    with pytest.raises(EdgeError, match="holds no c, expected a, c"):
        npm.read_members(TARBALL, ["a", "c"])
