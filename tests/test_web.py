"""The page in a real browser: verified by the probes, right to the level, and closed to the net."""

import base64
import json
import math
import os
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import tiny_artifact
from benchmarks.harness.browser_page import run_faces
from benchmarks.harness.browser_peer import MODELS
from benchmarks.harness.chromium import SOFTWARE_WEBGPU, find_chromium, open_page
from benchmarks.studies import browser as browser_study
from export import litert, npm, web
from export.tflite.convert import convert
from export.web_manifest import LITERT, ONNXRUNTIME
from export.web_server import make_server
from quantize.fp16_passes import store_weights_in_half, to_half
from runtime.artifact import read_artifact
from runtime.atomic import sha256_bytes, sha256_file
from runtime.drift import read_probes
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.image import to_pixels, to_tensor, upscale_bicubic
from runtime.manifest import probes_path, read_manifest
from runtime.media.detector import Detector
from runtime.media.photo import keep_what_is_known, trust, upscale_photo
from runtime.session import open_session

ROOT = Path(__file__).parent.parent
LIGHT = "FP32, FP16 weights"
STATE = "document.getElementById('status').dataset.state"
PIXELS = """(() => {
    const canvas = document.getElementById(%r);
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let text = '';
    for (let i = 0; i < data.length; i += 32768) {
        text += String.fromCharCode(...data.subarray(i, i + 32768));
    }
    return [canvas.height, canvas.width, btoa(text)];
})()"""


@pytest.fixture(scope="module")
def tarball():
    """onnxruntime-web's package, downloaded once a checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(ROOT / ".work" / "cache"))
        try:
            npm.fetch(ONNXRUNTIME.package)
        except EdgeError as error:
            pytest.skip(f"onnxruntime-web is not here: {error}")
    return ROOT / ".work" / "cache" / "aminet-edge" / "npm" / ONNXRUNTIME.package.file_name


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """A tiny network in three precisions, whose FP32 model is said to have 27 dB."""
    folder = tmp_path_factory.mktemp("artifacts")
    fp32 = onnx.load_model_from_string(tiny_artifact.build())
    quantized = tiny_artifact.build(tiny_artifact.INT8, tiny_artifact.quantized_weights())
    tiny_artifact.write_artifact(folder, psnr_y=27.0)
    for name, model, executes_as, target in (
        ("int8", quantized, "int8", "cpu"),
        ("fp16", serialized(store_weights_in_half(fp32)), "fp32, weights stored as FP16", "cpu"),
        ("fp16-trt", serialized(to_half(fp32)), "fp16", "tensorrt"),
    ):
        facts = {"precision": name[:4], "executes_as": executes_as, "target": target}
        tiny_artifact.write_artifact(folder, f"{name}.onnx", model, psnr_y=27.0, **facts)
    return folder


def serialized(model):
    return model.SerializeToString()


@pytest.fixture(scope="module")
def site(artifacts, tarball, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "site"
    web.build(out, artifacts, [tarball])
    return out


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests; its WebGPU is emulated."""
    chromium = find_chromium()
    if not chromium:
        pytest.skip("chromium is not installed")
    with open_page(chromium, SOFTWARE_WEBGPU) as page:
        page.resize(1280, 900)
        yield page


@contextmanager
def opened(browser, site, query="", *, isolated=True):
    """The page of a site, when it has come to its verdict."""
    with make_server(site, 0, isolated=isolated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser.problems.clear()
        browser.requested.clear()
        browser.allowed = (address, "blob:http://127.0.0.1", "data:", "about:")
        browser.visit(address + query)
        browser.wait_for(f"{STATE} !== 'loading'", 120)
        try:
            yield browser
        finally:
            browser.visit("about:blank")  # its workers end
            server.shutdown()


@pytest.fixture(scope="module")
def page(browser, site):
    """The page of the tiny site, verified, with threads."""
    with opened(browser, site) as page:
        page.wait_for("document.getElementById('input').inert === false")
        yield page


def text(page, name):
    return page.evaluate(f"document.getElementById({name!r}).textContent").replace("\xa0", " ")


def attempts(page):
    """{(provider, precision): (state, result)} of the table."""
    rows = page.evaluate(
        "[...document.querySelectorAll('#attempts tr')].map(row =>"
        " [...row.cells].map(cell => cell.textContent).concat(row.dataset.state))"
    )
    return {(row[0], row[1]): (row[-1], row[-2]) for row in rows}


def shown(page, name):
    """The pixels of a canvas (H, W, 3)."""
    height, width, content = page.evaluate(PIXELS % name)
    pixels = np.frombuffer(base64.b64decode(content), np.uint8).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3]


def upscaled(page, start):
    """Start something, and wait for what becomes of it."""
    page.evaluate("document.getElementById('outcome').textContent = ''")
    start()
    page.wait_for(
        "document.getElementById('outcome').textContent"
        " && document.getElementById('working').hidden"
    )
    return text(page, "outcome")


def altered(site, tmp_path, changes):
    """A copy of a site with some files changed, its hashes left as they are."""
    copy = tmp_path / "altered"
    shutil.copytree(site, copy, copy_function=os.link)
    for name, change in changes.items():
        path = copy / name
        data = change(path.read_bytes())
        path.unlink()
        path.write_bytes(data)
    return copy


def with_fitting_hashes(copy):
    """The same, as if it had been built so."""
    path = copy / web.MANIFEST
    manifest = json.loads(path.read_bytes())
    before = sha256_file(path)
    for name in manifest["files"]:
        data = (copy / name).read_bytes()
        manifest["files"][name] = {"sha256": sha256_bytes(data), "bytes": len(data)}
    for written, data in (
        (path, json.dumps(manifest).encode()),
        (copy / "index.html", None),
    ):
        content = data or written.read_bytes().replace(before.encode(), sha256_file(path).encode())
        written.unlink()
        written.write_bytes(content)
    return copy


def flip(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def change_probes(data):
    probes = json.loads(data)
    sr = bytearray(base64.b64decode(probes["sr"]))
    sr[0] ^= 1
    return json.dumps({**probes, "sr": base64.b64encode(sr).decode()}).encode()


def fewer_probes(data):
    probes = json.loads(data)
    for name in ("lr", "sr"):
        images = base64.b64decode(probes[name])
        size = len(images) // len(probes["names"])
        kept = images[: 2 * size] + images[-size:]
        probes[name] = base64.b64encode(kept).decode()
    return json.dumps({**probes, "names": ["a", "b", "white"], "faces": 2}).encode()


def perturb(data, factor):
    """The network with one weight tensor scaled."""
    model = onnx.load_model_from_string(data)
    (weight,) = (each for each in model.graph.initializer if each.name == "local_weight")
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name)
    )
    return model.SerializeToString()


def test_every_provider_runs_the_probes_and_the_fastest_that_passes_is_used(page, artifacts):
    fidelity = tiny_artifact.measured(
        (artifacts / "int8.onnx").read_bytes(), read_probes(artifacts / "probes.npz")
    )
    assert (
        text(page, "verdict") == f"Verified: {fidelity.fidelity_db:.1f} dB to FP32 on this device"
    )
    tried = attempts(page)
    states = [tried[f"WebAssembly, {kind}", "INT8"][0] for kind in ("threads", "one thread")]
    assert sorted(states) in (["passed", "used"], ["stopped", "used"])
    assert tried["WebGPU", LIGHT] == ("unavailable", "no GPU: the browser would emulate one")
    assert "INT8 in WebAssembly" in text(page, "about")
    assert page.evaluate("selection.attempts[0].threads") == min(4, os.cpu_count())
    assert page.problems == []


def test_a_face_is_the_one_that_python_makes(page, artifacts):
    """Within one level of 255, on each of the probes' faces."""
    probes = read_probes(artifacts / "probes.npz")
    with open_session(artifacts / "int8.onnx", "onnxruntime") as session:
        expected = to_pixels(session.run(to_tensor(probes.lr[: probes.faces])))
    for number in range(probes.faces):
        click = f"document.querySelectorAll('#samples button')[{number}].click()"
        assert upscaled(page, lambda click=click: page.evaluate(click)).startswith(
            "Face upscaled in"
        )
        difference = shown(page, "after").astype(int) - expected[number]
        assert np.abs(difference).max() <= 1
        assert (shown(page, "before") == upscale_bicubic(probes.lr[number])).all()


def test_the_images_are_pillows(page):
    """Resizing, its float form and turning, to the bit."""
    random = np.random.default_rng(3)
    photo = random.integers(0, 256, (37, 53, 3), np.uint8)
    sr, seen = (random.integers(0, 256, (side, side, 3), np.uint8) for side in (128, 21))
    sizes = [(128, 128), (16, 16), (53, 90), (7, 37)]
    turn, shift = 0.71 + 0.23j, 3.4 - 2.6j
    made = page.evaluate(
        f"""(async () => {{
        const {{Pixels, resize, transform}} = await import('./image.js');
        const {{keepWhatIsKnown}} = await import('./photo.js');
        const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
        const of = (w, h, text) => new Pixels(w, h, bytes(text));
        const photo = of(53, 37, '{encoded(photo)}');
        const images = {json.dumps(sizes)}.map(([w, h]) => resize(photo, w, h));
        images.push(transform(photo, 40, 30, {{re: {turn.real}, im: {turn.imag}}},
                              {{re: {shift.real}, im: {shift.imag}}}));
        images.push(keepWhatIsKnown(of(128, 128, '{encoded(sr)}'), of(21, 21, '{encoded(seen)}')));
        return images.map(image => Array.from(image.data));
        }})()"""
    )
    image = Image.fromarray(photo)
    matrix = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    bicubic = Image.Resampling.BICUBIC
    expected = [np.array(image.resize(size, bicubic)) for size in sizes]
    expected.append(np.array(image.transform((40, 30), Image.Transform.AFFINE, matrix, bicubic)))
    expected.append(keep_what_is_known(sr, seen))
    for ours, theirs in zip(made, expected, strict=True):
        assert ours == theirs.flatten().tolist()


def test_what_is_kept_of_a_noisy_face_is_what_python_keeps(page):
    """For networks that read 64 px of a face, and 16."""
    crop = astronaut(512).crop((150, 20, 300, 170)).resize((48, 48))
    restored = np.array(crop.resize((128, 128), Image.Resampling.BICUBIC))
    cases = [(np.array(noisy(crop, levels)), side) for levels in (0, 3, 12) for side in (64, 16)]
    made = page.evaluate(
        f"""(async () => {{
        const {{Pixels}} = await import('./image.js');
        const {{trust}} = await import('./photo.js');
        const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
        const of = (side, text) => new Pixels(side, side, bytes(text));
        const sr = of(128, '{encoded(restored)}');
        return {json.dumps([(encoded(seen), side) for seen, side in cases])}.map(
            ([seen, side]) => trust(sr, of(48, seen), side));
        }})()"""
    )
    expected = [trust(restored, seen, side) for seen, side in cases]
    assert made == pytest.approx(expected, abs=1e-4)
    assert min(expected) < 0.3 < expected[2] < max(expected)


def encoded(pixels):
    return base64.b64encode(pixels.tobytes()).decode()


def astronaut(side):
    """NASA's portrait of Eileen Collins, in the public domain."""
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)


def noisy(image, levels=8):
    """The image with noise of so many levels of 255."""
    noise = np.random.default_rng(0).normal(0, levels, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.array(image) + noise, 0, 255).astype(np.uint8))


def test_a_photo_is_the_one_that_python_makes_and_can_be_kept(page, artifacts, tmp_path):
    photo = Image.new("RGB", (260, 130), (90, 110, 120))
    photo.paste(astronaut(120), (4, 8))
    photo.paste(astronaut(100).rotate(20, Image.Resampling.BICUBIC), (140, 12))
    photo.save(tmp_path / "two.png")
    said = upscaled(page, lambda: page.choose_file("#file", tmp_path / "two.png"))
    assert said.startswith("2 faces upscaled in")
    assert said.endswith("the photo upscaled 8 times.")
    with open_session(artifacts / "int8.onnx", "onnxruntime") as session:
        expected = upscale_photo(np.array(photo), session, Detector())
    difference = np.abs(shown(page, "after").astype(int) - expected.pixels)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-4
    assert page.evaluate("document.querySelectorAll('#faces li').length") == 2
    page.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.wait_for("document.getElementById('download').href")
    page.evaluate("document.getElementById('download').click()")
    saved = tmp_path / "two_sr.png"
    end = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < end:
        page.evaluate("1")
        time.sleep(0.05)
    assert (np.array(Image.open(saved).convert("RGB")) == shown(page, "after")).all()


def test_a_photo_upside_down_is_the_one_that_python_makes(page, artifacts, tmp_path):
    photo = astronaut(100).transpose(Image.Transpose.ROTATE_180)
    photo.save(tmp_path / "down.png")
    said = upscaled(page, lambda: page.choose_file("#file", tmp_path / "down.png"))
    assert said.startswith("1 face upscaled in")
    with open_session(artifacts / "int8.onnx", "onnxruntime") as session:
        expected = upscale_photo(np.array(photo), session, Detector())
    assert np.abs(shown(page, "after").astype(int) - expected.pixels).max() <= 2


def test_a_large_face_is_left_and_a_smaller_photo_of_it_offered(page, tmp_path):
    astronaut(512).crop((80, 0, 380, 300)).save(tmp_path / "large.png")
    said = upscaled(page, lambda: page.choose_file("#file", tmp_path / "large.png"))
    assert said == "1 face left as it is: large enough to show more than the network would."
    shrunk = upscaled(page, lambda: page.evaluate("document.getElementById('shrink').click()"))
    assert shrunk.startswith(
        "The photo was shrunk first, so most detail is invented. 1 face upscaled"
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("note.png", b"no image", "note.png cannot be read as an image"),
        ("tall.png", (17, 90), "No face was found."),
        ("tiny.png", (12, 12), "The image is 12x12, expected a face of at least 16x16."),
    ],
)
def test_what_is_no_photo_is_named(page, tmp_path, name, content, expected):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.new("RGB", content, (120, 90, 60)).save(path)
    assert expected in upscaled(page, lambda: page.choose_file("#file", path))


def test_it_is_used_by_keyboard(page):
    page.evaluate("document.getElementById('file').focus()")
    for key in ("Tab", "Tab", "Enter"):  # the camera, the first sample
        page.press(key)
    page.wait_for("document.activeElement.closest('#samples') !== null")
    page.wait_for("!document.getElementById('compare').hidden")
    page.evaluate("document.getElementById('cut').focus()")
    page.press("ArrowLeft")
    frame = "document.querySelector('#compare .frame')"
    assert page.evaluate(f"{frame}.style.getPropertyValue('--cut')") == "49%"
    page.drag("#cut", 0.5, 0.2)
    assert float(page.evaluate(f"{frame}.style.getPropertyValue('--cut')").rstrip("%")) < 30


def test_everything_that_acts_has_a_name(page):
    tree = page.ask("Accessibility.getFullAXTree")["nodes"]
    kinds = {"button", "link", "slider", "image", "progressbar", "DisclosureTriangle", "canvas"}
    nodes = [each for each in tree if not each["ignored"] and each["role"]["value"] in kinds]
    assert len(nodes) >= 15
    assert [each["role"]["value"] for each in nodes if not each.get("name", {}).get("value")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_can_be_read(page, scheme, width):
    page.evaluate("document.getElementById('details').open = true")
    page.prefer(scheme)
    page.resize(width, 844, phone=width < 500)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    colors = page.evaluate(
        "(style => ['paper', 'raised', 'ink', 'quiet', 'bad', 'accent', 'on-accent'].map(name =>"
        " style.getPropertyValue(`--${name}`)))(getComputedStyle(document.body))"
    )
    paper, raised, ink, quiet, bad, accent, on_accent = map(luminance, colors)
    assert (paper > 0.5) == (scheme == "light")
    pairs = [(on_accent, accent), *((c, b) for c in (ink, quiet, bad) for b in (paper, raised))]
    assert [pair for pair in pairs if (max(pair) + 0.05) / (min(pair) + 0.05) < 4.5] == []
    page.resize(1280, 900)


def luminance(color):
    """The relative luminance of #rrggbb, as WCAG has it."""
    levels = [int(color.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_nothing_leaves_the_page(page, site, tmp_path):
    """After it has loaded, no request goes out: the browser stops one to its own server too."""
    assert all(url.startswith(page.allowed) for url in page.requested)
    page.requested.clear()
    astronaut(120).save(tmp_path / "photo.png")
    upscaled(page, lambda: page.choose_file("#file", tmp_path / "photo.png"))
    assert [url for url in page.requested if not url.startswith("blob:")] == []
    tried = """Promise.all([
        fetch('site.json'), fetch('https://example.invalid/'),
        new Promise((done, fail) => {
            const image = new Image();
            image.onload = done;
            image.onerror = () => fail(Error('blocked'));
            image.src = 'https://example.invalid/a.png';
        }),
    ].map(each => each.then(() => 'went out', error => 'blocked')))"""
    assert page.evaluate(tried) == ["blocked"] * 3
    assert page.evaluate("navigator.sendBeacon('site.json', 'x')") in (True, False)
    worker = f"""new Promise(done => {{
        const code = `fetch('{page.allowed[0]}site.json').then(() => postMessage('went out'),
                                                              () => postMessage('blocked'))`;
        const made = new Worker(URL.createObjectURL(new Blob([code])));
        made.onmessage = ({{data}}) => done(data);
    }})"""
    assert page.evaluate(worker) == "blocked"
    refused = [line for line in page.problems if "Content Security Policy" in line]
    assert len(refused) >= 4
    page.problems.clear()


def test_without_the_headers_it_says_that_it_runs_on_one_thread(browser, site):
    with opened(browser, site, isolated=False) as page:
        assert page.evaluate(STATE) == "verified"
        state, why = attempts(page)["WebAssembly, threads", "INT8"]
        assert (state, "headers that threads need" in why) == ("unavailable", True)
        assert "It runs on one thread, because the server does not send" in text(page, "about")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model/int8.onnx", flip),
        ("model/probes.json", change_probes),
        ("model/int8.onnx.json", lambda data: data.replace(b"27.0", b"17.0")),
        ("detector/centerface.onnx", flip),
        (f"onnxruntime-web-{ONNXRUNTIME.package.version}/ort-wasm-simd-threaded.mjs", flip),
        ("site.json", lambda data: data + b" "),
    ],
)
def test_a_file_that_was_changed_is_refused(browser, site, tmp_path, name, change):
    with opened(browser, altered(site, tmp_path, {name: change})) as page:
        assert page.evaluate(STATE) == "failed"
        assert text(page, "about").startswith(
            f"{name} is not the file that the site was built with"
        )
        assert page.evaluate("document.getElementById('input').inert")


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.1, "drifts from FP32"), (np.nan, "not finite")]
)
def test_a_network_that_drifts_is_refused_by_the_probes(browser, site, tmp_path, factor, expected):
    """Its hashes fit, as if it had been built so; the FP32 file is offered in its place."""
    changes = {"model/int8.onnx": lambda data: perturb(data, factor)}
    with opened(browser, with_fitting_hashes(altered(site, tmp_path, changes))) as page:
        assert page.evaluate(STATE) == "failed"
        for kind in ("threads", "one thread"):
            state, why = attempts(page)[f"WebAssembly, {kind}", "INT8"]
            assert state == "drifted"
            assert expected in why
        assert page.evaluate("document.getElementById('input').inert")
        assert page.evaluate("document.querySelector('#retry a').search") == "?precision=fp32"


def test_a_network_of_64_px_reads_its_own_faces(browser, tarball, artifact_64, tmp_path):
    """Of images as runtime.infer tells them: faces up to 32 px, crops and photos of more.

    A small image without a face that is found may be taken for one.
    """
    web.build(tmp_path / "site", artifact_64, [tarball])
    smooth = Image.fromarray(tiny_artifact.faces(1, seed=5, side=90)[0])
    images = {"face": smooth.resize((32, 32)), "whole": smooth, "crop": astronaut(100)}
    images["noisy"] = noisy(astronaut(150))
    with open_session(artifact_64, "onnxruntime") as session:
        expected = {name: session.upscale(np.array(images[name])) for name in ("face", "whole")}
        for name in ("crop", "noisy"):
            expected[name] = upscale_photo(np.array(images[name]), session, Detector()).pixels
    with opened(browser, tmp_path / "site", "?provider=wasm") as page:
        assert text(page, "verdict") == "Verified: 100.0 dB to FP32 on this device"
        page.wait_for("document.getElementById('input').inert === false")
        for name, image in images.items():
            path = tmp_path / f"{name}.png"
            image.save(path)
            said = upscaled(page, lambda path=path: page.choose_file("#file", path))
            if name == "whole":
                assert said == "No face was found."
                for hidden in ("compare", "download"):
                    assert page.evaluate(f"document.getElementById('{hidden}').hidden")
                upscaled(page, lambda: page.evaluate("document.getElementById('whole').click()"))
            assert np.abs(shown(page, "after").astype(int) - expected[name]).max() <= 2, name
        assert page.evaluate("document.getElementById('whole').hidden")


def test_fp32_is_used_where_it_is_asked_for(browser, site):
    with opened(browser, site, "?precision=fp32&provider=wasm") as page:
        assert page.evaluate("selection.chosen.fidelity.fidelity_db") > 60
        assert text(page, "about").startswith(f"{LIGHT} in WebAssembly, one thread")


def test_webgpu_is_used_where_it_is_asked_for(browser, site, tmp_path):
    """In Chromium's emulation of a GPU, with three probes; by itself the page takes none."""
    copy = with_fitting_hashes(altered(site, tmp_path, {"model/probes.json": fewer_probes}))
    with opened(browser, copy, "?provider=webgpu") as page:
        if attempts(page)["WebGPU", LIGHT][1] == "no GPU that the browser may use":
            pytest.skip("this chromium offers no emulated WebGPU")
        assert text(page, "about").startswith(f"{LIGHT} in WebGPU")
        assert page.evaluate("selection.chosen.fidelity.fidelity_db") > 60
        assert attempts(page)["WebGPU", "FP16"] == ("unavailable", "the GPU has no shader-f16")


def test_a_missing_file_is_named(browser, site, tmp_path):
    copy = altered(site, tmp_path, {})
    (copy / "model" / "probes.json").unlink()
    with opened(browser, copy) as page:
        assert text(page, "about").startswith("model/probes.json was not found on the server")


@pytest.mark.parametrize("model", ["tiny_model", "tiny_model_64"])
def test_aminet_in_int8_gives_the_same_levels_as_python(browser, request, tarball, tmp_path, model):
    """The real network's operators, with INT8 convolutions in WebAssembly."""
    int8 = request.getfixturevalue(model) / "int8.onnx"
    web.build(tmp_path / "site", int8, [tarball])
    probes = read_probes(probes_path(int8))
    lr = to_tensor(probes.lr[:4])
    with open_session(int8, "onnxruntime") as session:
        expected = to_pixels(session.run(lr)).astype(int)
    share = read_manifest(int8).flags["int8_mac_share"]
    with opened(browser, tmp_path / "site", "?provider=wasm") as page:
        assert f"{math.floor(share * 100)} % of its multiply-adds are INT8" in text(page, "about")
        made = to_pixels(run_faces(page, lr))
    assert np.abs(made - expected).max() <= 1


@pytest.fixture(scope="module")
def litert_tarball(tarball):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(ROOT / ".work" / "cache"))
        try:
            npm.fetch(LITERT.package)
        except EdgeError as error:
            pytest.skip(f"LiteRT.js is not here: {error}")
    return tarball.with_name(LITERT.package.file_name)


@pytest.fixture(scope="module")
def lite_site(tiny_model, tarball, litert_tarball, tmp_path_factory):
    """A site with the same INT8 network for ONNX Runtime Web and for LiteRT.js."""
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("lite") / "tiny"
    shutil.copytree(tiny_model, folder)
    (folder / "litert").mkdir(exist_ok=True)
    litert.export(read_artifact(folder / "int8.onnx"), folder / "litert", "int8")
    web.build(folder.parent / "site", folder, [tarball, litert_tarball], litert=True)
    return folder.parent / "site"


@pytest.mark.parametrize("provider", ["wasm", "wasm-threads"])
def test_litert_gives_the_same_levels_as_python_and_finds_faces(
    browser, lite_site, provider, tmp_path
):
    """The detector stays in ONNX Runtime Web, beside it."""
    folder = lite_site.with_name("tiny")
    probes = read_probes(probes_path(folder / "int8.onnx"))
    lr = to_tensor(probes.lr[:3])
    with open_session(folder / "litert" / "int8.tflite", "litert") as session:
        expected = to_pixels(session.run(lr)).astype(int)
    query = f"?runtime={LITERT.package.name}&provider={provider}"
    with opened(browser, lite_site, query) as page:
        assert text(page, "about").startswith("INT8 by LiteRT in WebAssembly")
        made = to_pixels(run_faces(page, lr))
        assert np.abs(made - expected).max() <= 1
        page.wait_for("document.getElementById('input').inert === false")
        astronaut(100).save(tmp_path / "photo.png")
        said = upscaled(page, lambda: page.choose_file("#file", tmp_path / "photo.png"))
        assert said.startswith("1 face upscaled in")
        assert page.problems == []


def test_each_runtime_runs_the_probes_and_one_that_drifts_is_refused(browser, lite_site, tmp_path):
    """LiteRT.js's file has other scales than its weights; ONNX Runtime Web's is used."""
    path = lite_site.with_name("tiny") / "int8.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 1 and tensor.name.endswith("scale"):
            scales = numpy_helper.to_array(tensor) * np.float32(1.3)
            tensor.CopyFrom(numpy_helper.from_array(scales, tensor.name))
    wrong = convert(model, str(path), title="wrong")
    changes = {"model/int8.tflite": lambda data: wrong}
    copy = with_fitting_hashes(altered(lite_site, tmp_path, changes))
    with opened(browser, copy, "?provider=wasm") as page:
        state, why = attempts(page)["WebAssembly, one thread", "INT8 by LiteRT"]
        assert (state, "drifts from FP32" in why) == ("drifted", True)
        assert attempts(page)["WebAssembly, one thread", "INT8"][0] == "used"


def test_the_study_measures_the_page_on_faces(artifacts, tiny_model_64, tarball, hr_faces):
    if not find_chromium():
        pytest.skip("chromium is not installed")
    backends = {"?provider=wasm": "WebAssembly, one thread"}
    folders = [artifacts, tiny_model_64]
    report = browser_study.measure(folders, [hr_faces], backends, turns=1, tarballs=[tarball])
    (row, row_64), (speed, _) = report.rows, report.speeds
    assert (row_64.file, row_64.faces) == ("tiny/int8.onnx", 3)
    assert row_64.precision.startswith("int8, ")
    assert row_64.precision.endswith("% of the multiply-adds, as the file says")
    with open_session(artifacts / "int8.onnx", "onnxruntime") as session:
        here = session.verdict.fidelity
    assert abs(row.fidelity_db - here.fidelity_db) < 0.1
    assert (row.file, row.precision, row.faces) == ("tiny/int8.onnx", "int8", 3)
    assert abs(row.drift_db) < 0.1
    assert (speed.threads, speed.ms > 0) == (1, True)
    assert speed.loaded_bytes > 20_000_000
    content = json.loads(json.dumps(asdict(report)))
    assert "`tiny/int8.onnx`" in browser_study.browser_tables(content)


def test_the_peer_needs_faces(artifacts, capsys):
    assert browser_study.main(["--artifact", str(artifacts), "--peer"]) == EXIT_USAGE
    assert "--peer needs --data" in capsys.readouterr().err


def test_the_peer_is_compared_with_a_model_of_its_own_faces(artifact_64, hr_faces, capsys):
    words = ["--artifact", str(artifact_64.parent), "--peer", "--data", str(hr_faces)]
    assert browser_study.main(words) == EXIT_USAGE
    assert "aminet-real reads 64 px; name artifacts/aminet-edge first" in capsys.readouterr().err


@pytest.mark.soak
def test_the_peer_upscales_the_same_faces(artifacts, tarball, hr_faces, monkeypatch):
    """Its packages are downloaded once a checkout, 57 MB."""
    if not find_chromium():
        pytest.skip("chromium is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(ROOT / ".work" / "cache"))
    backends = {browser_study.OURS: "WebAssembly, one thread"}
    report = browser_study.measure(
        [artifacts], [hr_faces], backends, turns=1, tarballs=[tarball], peer=True
    )
    bicubic, *theirs, ours = report.peers
    assert [row.upscaler.split()[0] for row in theirs] == ["upscaler"] * len(MODELS)
    assert min(row.psnr_y for row in theirs) > 25  # a wrong range or order would be under 15
    assert min(row.ms for row in (*theirs, ours)) > 0
    assert bicubic.psnr_y > 50  # the pictures are smooth
    assert ours.upscaler == "tiny INT8, ONNX Runtime Web, one thread"
    assert "| bicubic |" in browser_study.browser_tables(json.loads(json.dumps(asdict(report))))


@pytest.mark.soak
def test_the_committed_network_passes_in_every_backend(edge_int8, edge_halves, tarball):
    """Also in the emulated WebGPU, which takes minutes."""
    if not find_chromium():
        pytest.skip("chromium is not installed")
    folder = edge_int8.parent
    assert {Path(each.artifact).parent for each in edge_halves} == {folder}
    backends = {**browser_study.BACKENDS, **browser_study.WEBGPU}
    report = browser_study.measure([folder], (), backends, turns=1, tarballs=[tarball])
    for row, least in zip(report.rows, (50, 50, 65, 65), strict=True):
        assert row.fidelity_db > least
