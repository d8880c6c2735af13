"""Videos: every frame's faces, the times kept, and nothing without a bound."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest

import tiny_artifact
from runtime import infer
from runtime.errors import EdgeError
from runtime.media import video
from test_photo import astronaut

av = pytest.importorskip("av")


def write_video(path, frames, times=None, codec="libx264"):
    """An MP4 of RGB frames; at the given times in tenths of a second, else one after the other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times or range(99))[number], Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path):
    """The frames (N, H, W, 3) and their seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return np.stack([f.to_ndarray(format="rgb24") for f in frames]), [f.time for f in frames]


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


def test_a_folder_takes_videos_too(clip, artifact, tmp_path):
    astronaut(96).save(clip.with_name("photo.png"))
    assert run(clip.parent, "--artifact", artifact, "--scale", "1", "--out", tmp_path / "o") == 0
    written = sorted(path.name for path in (tmp_path / "o").glob("*"))
    assert written == ["clip_sr.mp4", "photo_sr.png"]


def write_sound(path, codec, seconds=1.0):
    """A video of two frames, a tenth of a second apart, with a tone."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=10)
        pictures.height = pictures.width = 32
        tone = container.add_stream(codec, rate=48_000)
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(tiny_artifact.faces(1)[0].repeat(2, 0).repeat(2, 1))
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
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
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_sound_is_copied_as_it_is(tmp_path, artifact, capsys):
    source = write_sound(tmp_path / "a.mp4", "aac")
    assert run(source, "--artifact", artifact, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["sound"] == "copied"
    assert len(read_video(tmp_path / "a_sr.mp4")[0]) == 2
    assert np.array_equal(read_sound(tmp_path / "a_sr.mp4"), read_sound(source))


def test_sound_that_mp4_does_not_take_is_left_out_and_said(tmp_path, artifact, capsys):
    source = write_sound(tmp_path / "a.mkv", "pcm_s16le")
    assert run(source, "--artifact", artifact) == 0
    assert "sound left out: MP4 has no place for pcm_s16le" in capsys.readouterr().err
    with av.open(str(tmp_path / "a_sr.mp4")) as container:
        assert not container.streams.audio


def test_each_frame_is_told(clip, tmp_path):
    told = []
    written = video.upscale_video(
        clip, tmp_path / "x.mp4", lambda frame: frame, lambda *now: told.append(now)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (written.frames, written.sound) == (3, "none")


def test_a_bar_shows_the_frames(capsys):
    bar = infer.ProgressBar()
    bar.watch(1, 4)
    bar.watch(2, None)
    said = capsys.readouterr().err
    assert "[" + "#" * 8 + " " * 22 + "] frames 1/4" in said
    assert "] frames 2/?" in said


def cut(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "is no video, or damaged"),
        (lambda path: path.write_bytes(b"text" * 100), "is no video, or damaged"),
        (lambda path: path.write_bytes(cut(path.read_bytes())), "is no video, or damaged"),
        (lambda path: path.unlink(), "is not there"),
        (lambda path: (path.unlink(), path.mkdir()), "holds no picture"),
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


def test_large_and_long_videos_are_refused(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 100 * 99)
    with pytest.raises(EdgeError, match="has frames of 100x100, expected at most 9,900 pixels"):
        video.upscale_video(clip, tmp_path / "x.mp4", lambda frame: frame)
    monkeypatch.undo()
    monkeypatch.setattr(video, "MAX_FRAMES", 2)
    with pytest.raises(EdgeError, match="more than 2 frames"):
        video.upscale_video(clip, tmp_path / "x.mp4", lambda frame: frame)
    assert list(tmp_path.glob("*x*")) == []


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
    assert [video.largest_scale(*size) for size in ((96, 96), (480, 640), (1080, 1920))] == [
        8,
        3,
        1,
    ]
