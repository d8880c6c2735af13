"""Videos: every frame's faces, the times kept, and nothing without a bound."""

import json
import sys
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

import tiny_artifact
from runtime import infer
from runtime.errors import EdgeError
from runtime.media import video, video_input
from runtime.media.alignment import Frame
from runtime.media.detector import Detector
from runtime.media.jobs import is_video_name
from runtime.media.photo import largest_frame_scale, upscale_found
from runtime.media.tracks import Tracker
from test_photo import astronaut

av = pytest.importorskip("av")


def write_video(path, frames, times=None, codec="libx264", pix_fmt="yuv444p", rotation=0, **looks):
    """A video of RGB frames; at the given times in tenths of a second, else one after the other.

    `looks` are attributes of the encoder: colors (FFmpeg's numbers), the shape of a pixel.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for name, value in looks.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if looks:
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace=looks.get("colorspace", 2),
                    dst_color_range=looks.get("color_range", 0),
                )
            frame.pts, frame.time_base = (times or range(99))[number], Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@dataclass(frozen=True, eq=False)
class Shown:
    """What a player shows: upright frames (N, H, W, 3), their seconds, and the image's shape."""

    frames: np.ndarray
    seconds: list
    end: float
    aspect: Fraction
    colors: tuple


def shown(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pixels = [
            np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            for frame in frames
        ]
        height, width = pixels[0].shape[:2]
        pixel = stream.sample_aspect_ratio or Fraction(1)
        if frames[0].rotation % 180:
            pixel = 1 / pixel
        first = frames[0]
        colors = (first.colorspace, first.color_primaries, first.color_trc, first.color_range)
        end = float(frames[-1].pts * frames[-1].time_base + frames[-1].duration * stream.time_base)
        times = [frame.time for frame in frames]
        return Shown(np.stack(pixels), times, end, pixel * Fraction(width, height), colors)


def read_video(path):
    """The frames (N, H, W, 3) and their seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return np.stack([f.to_ndarray(format="rgb24") for f in frames]), [f.time for f in frames]


@pytest.fixture(scope="module")
def found():
    return Detector()


@pytest.fixture
def clip(tmp_path):
    frames = [np.array(astronaut(100).rotate(angle)) for angle in (-4, 0, 4)]
    return write_video(tmp_path / "clip.mp4", frames, times=[0, 1, 5])


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def test_every_frame_is_enlarged_and_the_times_are_kept(clip, artifact, capsys):
    assert run(clip, "--artifact", artifact, "--scale", "4", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["kind"], result["faces"], result["error"]) == ("video", 3, None)
    frames, seconds = read_video(clip.with_name("clip_sr.mp4"))
    assert frames.shape == (3, 400, 400, 3)
    assert seconds == pytest.approx([0, 0.1, 0.5], abs=0.01)
    plain = np.array(astronaut(100).resize((400, 400)))
    assert np.abs(frames[1].astype(int) - plain).mean() < 8


def test_a_video_of_face_pictures_becomes_faces(tmp_path, artifact):
    frames = [np.repeat(np.repeat(face, 2, 0), 2, 1) for face in tiny_artifact.faces(4)]
    write_video(tmp_path / "faces.mkv", frames)
    assert run(tmp_path / "faces.mkv", "--artifact", artifact) == 0
    assert read_video(tmp_path / "faces_sr.mp4")[0].shape == (4, 128, 128, 3)


def test_a_file_is_not_asked_after_it_is_closed(clip, monkeypatch):
    # FFmpeg has freed the track then: its time base is anything, and a whole video "damaged".
    target, asked = clip.with_name("out.mp4"), []

    class Reader(video.VideoReader):
        @property
        def shortfall(self):
            asked.append(target.exists())  # it appears before the source is closed
            return super().shortfall

    def left_out(container):
        asked.append(target.exists())

    monkeypatch.setattr(video, "VideoReader", Reader)
    monkeypatch.setattr(video, "_left_out", left_out)
    assert video.upscale_video(clip, target, lambda pixels: pixels).shortfall is None
    assert target.exists()
    assert asked == [False, False]


def test_a_folder_takes_videos_too(clip, artifact, tmp_path):
    astronaut(96).save(clip.with_name("photo.png"))
    assert run(clip.parent, "--artifact", artifact, "--scale", "1", "--out", tmp_path / "o") == 0
    written = sorted(path.name for path in (tmp_path / "o").glob("*"))
    assert written == ["clip_sr.mp4", "photo_sr.png"]


def write_sound(path, codec, seconds=1.0):
    """A video of two frames, a tenth of a second apart, with a tone."""
    with av.open(str(path), "w") as container:
        images = container.add_stream("libx264", rate=10)
        images.height = images.width = 32
        tone = container.add_stream(codec, rate=48_000)
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(tiny_artifact.faces(1)[0].repeat(2, 0).repeat(2, 1))
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(images.encode(frame))
        container.mux(images.encode(None))
        wave = np.sin(np.arange(round(48_000 * seconds)) * 0.06).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None] / 2, format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        frames = av.AudioResampler(tone.format, tone.layout, tone.rate).resample(frame)
        for frame in frames:
            container.mux(tone.encode(frame))
        container.mux(tone.encode(None))
    return path


def read_sound(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    channels = 1 if frames[0].format.is_planar else frames[0].layout.nb_channels
    return np.concatenate([frame.to_ndarray()[0, ::channels] for frame in frames])


def test_sound_is_copied_as_it_is(tmp_path, artifact, capsys):
    source = write_sound(tmp_path / "a.mp4", "aac")
    assert run(source, "--artifact", artifact, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["sound"] == "copied"
    assert len(read_video(tmp_path / "a_sr.mp4")[0]) == 2
    assert np.array_equal(read_sound(tmp_path / "a_sr.mp4"), read_sound(source))


@pytest.mark.parametrize(
    ("name", "codec", "fate"),
    [
        ("a.mp4", "libmp3lame", "copied"),
        ("a.mkv", "flac", "copied"),
        ("a.mkv", "libopus", "copied"),
        ("a.mkv", "pcm_s16le", "transcoded from pcm_s16le to aac"),
        ("a.avi", "ac3", "copied"),
    ],
)
def test_sound_is_copied_or_transcoded(tmp_path, name, codec, fate):
    source = write_sound(tmp_path / name, codec)
    written = video.upscale_video(source, tmp_path / "out.mp4", lambda frame: frame)
    assert (written.sound, written.shortfall) == (fate, None)
    heard, was = read_sound(tmp_path / "out.mp4"), read_sound(source)
    assert abs(len(heard) - len(was)) < 3000  # of 48,000; coders add silence
    scale = 32768 if was.dtype == np.int16 else 1
    loud, was_loud = np.abs(heard[9000:40_000]).mean(), np.abs(was[9000:40_000] / scale).mean()
    loud = loud / 32768 if heard.dtype == np.int16 else loud
    assert loud == pytest.approx(was_loud, rel=0.1)


@pytest.mark.parametrize(
    "looks",
    [
        {"rotation": 90},
        {"rotation": -90, "sample_aspect_ratio": Fraction(4, 3)},
        {"rotation": 180},
        {"sample_aspect_ratio": Fraction(4, 3)},
        {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1},
        {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 2},
        {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1},
        {"colorspace": 5, "color_primaries": 5, "color_trc": 6, "color_range": 1},
    ],
    ids=["right", "left, wide", "upside down", "wide", "709", "709, full", "2020, PQ", "601"],
)
def test_the_result_looks_as_the_source_does(tmp_path, looks, found):
    """In a player: turned, as wide, in its colors; with a face laid over it and without."""
    portrait = astronaut(112)
    if "rotation" in looks:
        portrait = portrait.rotate(-looks["rotation"])
    face = Image.new("RGB", (192, 128), (120, 140, 110))
    face.paste(portrait, (8, 8))
    for x, color in enumerate(((200, 30, 30), (30, 160, 30), (30, 30, 200))):
        face.paste(color, (130 + 20 * x, 90, 146 + 20 * x, 120))
    source = write_video(
        tmp_path / "a.mp4", [np.array(face)] * 2, **{"pix_fmt": "yuv420p", **looks}
    )
    faces = []

    def upscale(frame):
        faces.append(found.find(frame, turned=False))
        return upscale_found(frame, faces[-1], lambda lr: lr.repeat(8, 1).repeat(8, 2), 16, 2)

    video.upscale_video(source, tmp_path / "b.mp4", upscale)
    before, after = shown(source), shown(tmp_path / "b.mp4")
    assert all(len(each) == 1 for each in faces)
    assert after.aspect == before.aspect
    if "colorspace" in looks:
        assert after.colors == before.colors
    assert after.frames.shape[1:3] == (before.frames.shape[1] * 2, before.frames.shape[2] * 2)
    width, height = before.frames.shape[2], before.frames.shape[1]
    halved = np.stack(
        [np.array(Image.fromarray(f).resize((width, height), 4)) for f in after.frames]
    )
    difference = np.abs(halved.astype(int) - before.frames)
    assert difference.mean() < 3
    flat = (np.abs(before.frames.astype(int) - (120, 140, 110)) < 12).all(axis=3)
    assert flat.mean() > 0.2
    assert difference[flat].mean() < 1.5


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("first", [0, 7])
def test_times_start_and_end_as_in_the_source(tmp_path, name, first):
    times = [first, first + 1, first + 2, first + 6]
    if name == "a.avi":
        times = list(range(4))  # it has no times of its own
    codec = "mpeg4" if name == "a.avi" else "libx264"
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (40, 90, 140, 190)]
    source = write_video(tmp_path / name, frames, times, codec, "yuv420p")
    video.upscale_video(source, tmp_path / "b.mp4", lambda frame: frame)
    before, after = shown(source), shown(tmp_path / "b.mp4")
    assert after.seconds == pytest.approx(before.seconds, abs=0.002)
    assert after.end == pytest.approx(before.end, abs=0.002) or name == "a.mkv"
    assert np.abs(after.frames.astype(int) - before.frames).mean() < 2


def test_of_a_video_that_is_cut_off_what_there_is_is_made(tmp_path, artifact, capsys):
    frames = [np.array(astronaut(64).rotate(i)) for i in range(30)]
    source = write_video(tmp_path / "a.avi", frames, codec="mpeg4", pix_fmt="yuv420p")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    assert run(source, "--artifact", artifact, "--scale", "1", "--json") == 1
    said = capsys.readouterr()
    (result,) = json.loads(said.out)["results"]
    assert "of 30 frames can be read, the rest is damaged" in result["error"]
    assert result["output"] == str(tmp_path / "a_sr.mp4")
    made = shown(tmp_path / "a_sr.mp4").frames
    assert 0 < len(made) < 30
    assert f"only {len(made)} of 30" in said.err


def test_of_a_matroska_file_that_is_cut_off_the_length_tells(tmp_path):
    frames = [np.array(astronaut(64).rotate(3 * i)) for i in range(30)]
    source = write_video(tmp_path / "a.mkv", frames)
    whole = video.upscale_video(source, tmp_path / "b.mp4", lambda frame: frame)
    assert (whole.frames, whole.shortfall) == (30, None)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    part = video.upscale_video(source, tmp_path / "b.mp4", lambda frame: frame)
    assert 0 < part.frames < 30
    assert part.shortfall == (
        f"only {part.frames} frames can be read, the rest is damaged; get it again"
    )


def test_damaged_packets_are_a_shortfall(tmp_path):
    frames = [np.array(astronaut(64).rotate(i)) for i in range(20)]
    source = write_video(tmp_path / "a.mp4", frames)
    data = bytearray(source.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 600] = bytes(600)
    source.write_bytes(data)
    written = video.upscale_video(source, tmp_path / "b.mp4", lambda frame: frame)
    assert written.shortfall or written.frames == 20


def test_frames_of_another_size_are_fitted(tmp_path):
    source = write_video(tmp_path / "a.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    sizes = iter((64, 96, 64))
    video.upscale_video(
        source, tmp_path / "b.mp4", lambda frame: np.full((next(sizes), 64, 3), 90, np.uint8)
    )
    assert read_video(tmp_path / "b.mp4")[0].shape == (3, 64, 64, 3)


def noisy_clip(count=12):
    """A still portrait with a camera's noise (N, H, W, 3)."""
    random, still = np.random.default_rng(0), np.array(astronaut(120)).astype(float)
    noise = random.normal(0, 5, (count, *still.shape))
    return np.clip(still + noise, 0, 255).astype(np.uint8)


def flicker(frames, detect):
    """How much the frame of the face moves, in px of 128, in the mean over a still clip."""
    corners = []
    for frame in frames:
        (face,) = detect(frame)
        corners.append(Frame.around(face.landmarks).to_photo(np.array([[0, 0], [128, 128.0]])))
    return np.std(corners, axis=0).mean()


def test_followed_faces_tremble_less_than_those_of_single_frames(found):
    frames = noisy_clip()
    single = flicker(frames, lambda frame: found.find(frame, turned=False))
    followed = flicker(frames, Tracker(found).find)
    assert followed < 0.6 * single


def test_a_face_that_moves_is_followed_at_once(found):
    tracker, still = Tracker(found), astronaut(120)
    for step in range(8):
        scene = Image.new("RGB", (320, 130), (90, 110, 120))
        scene.paste(still, (step * 20, 5))
        (face,) = tracker.find(np.array(scene))
        (there,) = found.find(np.array(scene), turned=False)
        assert np.abs(face.landmarks - there.landmarks).max() < 2


def test_after_a_cut_the_faces_are_new_ones(found):
    tracker = Tracker(found)
    one = Image.new("RGB", (320, 130), (20, 20, 20))
    one.paste(astronaut(120), (0, 5))
    other = Image.new("RGB", (320, 130), (220, 220, 220))
    other.paste(astronaut(120), (190, 5))
    assert len(tracker.find(np.array(one))) == 1
    (face,) = tracker.find(np.array(other))
    assert face.center[0] > 190


def test_each_frame_is_told(clip, tmp_path):
    told = []
    written = video.upscale_video(
        clip, tmp_path / "x.mp4", lambda frame: frame, lambda *now: told.append(now)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (written.frames, written.sound, written.shortfall) == (3, "none", None)


def cut(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "is no video, or damaged"),
        (lambda path: path.write_bytes(b"text" * 100), "is no video, or damaged"),
        (lambda path: path.write_bytes(cut(path.read_bytes())), "is no video, or damaged"),
        (lambda path: path.unlink(), "not found"),
        (lambda path: (path.unlink(), path.mkdir()), "holds no image or video"),
    ],
    ids=["empty", "text", "cut", "missing", "folder"],
)
def test_what_is_no_video_is_named(clip, artifact, capsys, spoil, message):
    spoil(clip)
    assert run(clip, "--artifact", artifact) == 1
    said = capsys.readouterr().err
    assert f"clip.mp4: {message}" in said
    assert said.count("\n") == 1
    assert not list(clip.parent.glob("*_sr*"))


def test_large_and_long_videos_are_refused_before_the_work(clip, tmp_path, monkeypatch):
    def upscale(frame):
        raise AssertionError

    monkeypatch.setattr(video_input, "MAX_FRAME_PIXELS", 100 * 99)
    with pytest.raises(EdgeError, match="has frames of 100x100, expected at most 9,900 pixels"):
        video.upscale_video(clip, tmp_path / "x.mp4", upscale)
    monkeypatch.undo()
    monkeypatch.setattr(video_input, "MAX_FRAMES", 2)
    with pytest.raises(EdgeError, match="has 3 frames, expected at most 2; cut it"):
        video.upscale_video(clip, tmp_path / "x.mp4", upscale)
    assert list(tmp_path.glob("*x*")) == []


def test_of_a_long_video_that_does_not_say_so_the_first_frames_are_made(tmp_path, monkeypatch):
    frames = [np.full((32, 32, 3), level, np.uint8) for level in range(0, 250, 50)]
    source = write_video(tmp_path / "a.m2ts", frames, codec="mpeg2video", pix_fmt="yuv420p")
    monkeypatch.setattr(video_input, "MAX_FRAMES", 3)
    monkeypatch.setattr(video_input.VideoReader, "_refuse_long", lambda self: None)
    written = video.upscale_video(source, tmp_path / "x.mp4", lambda frame: frame)
    assert written.frames == 3
    assert written.shortfall == "only its first 3 frames were upscaled; cut it"


def test_a_playlist_cannot_read_other_files(tmp_path, clip):
    """A text that FFmpeg would take for a list of files to read on."""
    lists = {
        "a.mp4": f"ffconcat version 1.0\nfile '{clip.name}'\n",
        "b.mp4": f"#EXTM3U\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(EdgeError, match="is no video"):
            video.upscale_video(tmp_path / name, tmp_path / "x.mp4", lambda frame: frame)


def test_without_pyav_its_extra_is_named(clip, artifact, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    assert run(clip, "--artifact", artifact) == 5
    assert "pip install 'aminet-edge[video]'" in capsys.readouterr().err


def test_odd_sides_lose_a_row(tmp_path):
    frames = [np.full((100, 100, 3), 77, np.uint8)]
    write_video(tmp_path / "a.mp4", frames)
    video.upscale_video(tmp_path / "a.mp4", tmp_path / "b.mp4", lambda frame: frame[:99, :51])
    assert read_video(tmp_path / "b.mp4")[0].shape == (1, 98, 50, 3)


def test_a_failure_stops_the_decoder(clip, tmp_path):
    def fail(frame):
        raise EdgeError("no more")

    with pytest.raises(EdgeError, match="no more"):
        video.upscale_video(clip, tmp_path / "x.mp4", fail)
    assert list(tmp_path.glob("*x*")) == []


def test_the_largest_scale_of_a_frame():
    sizes = ((96, 96), (480, 640), (1080, 1920), (2160, 3840))
    assert [largest_frame_scale(*size) for size in sizes] == [8, 3, 2, 2]


@pytest.mark.parametrize("suffix", [".3gp", ".mts", ".m2ts", ".mpg", ".MOV"])
def test_videos_are_known_by_their_suffix(suffix):
    assert is_video_name(f"x{suffix}")


@pytest.mark.parametrize("name", ["a.3gp", "a.m2ts"])
def test_videos_of_phones_and_camcorders_are_read(tmp_path, name):
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (40, 90, 140)]
    codec = "mpeg4" if name == "a.3gp" else "mpeg2video"
    source = write_video(tmp_path / name, frames, codec=codec, pix_fmt="yuv420p")
    written = video.upscale_video(source, tmp_path / "b.mp4", lambda frame: frame)
    assert (written.frames, written.shortfall) == (3, None)
