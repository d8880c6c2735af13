"""Parquet files in and out of `python -m runtime.infer`: a file becomes a file, whole or again."""

import json
import tarfile

import numpy as np
import pytest

import tiny_artifact
from runtime import infer
from runtime.image import decode_image, encode_image
from runtime.media import parquet
from runtime.session import open_session

pa = pytest.importorskip("pyarrow", reason="the extra scale is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra scale is not installed")
FACES = tiny_artifact.faces(7)


def run(*arguments):
    return infer.main([str(argument) for argument in arguments])


def png(pixels):
    return b"".join(encode_image(pixels, ".png"))


def write_table(path, faces=FACES, group=3, **columns):
    """Columns `id`, `image` and more, in row groups of three."""
    given = {"id": [f"d/{i}" for i in range(len(faces))], "image": list(map(png, faces)), **columns}
    pq.write_table(pa.table(given), path, row_group_size=group, compression="none")
    return path


def rows(path):
    return pq.read_table(path).to_pylist()


def assert_upscaled(data, face, session):
    difference = decode_image(data, "sr").astype(int) - session.upscale(face)
    assert np.abs(difference).max() <= 1


def test_a_parquet_file_keeps_its_rows_and_columns(tmp_path, artifact, capsys):
    source = write_table(tmp_path / "faces.parquet", age=pa.array(range(7), pa.int16()))
    assert run(source, "--artifact", artifact, "--out", tmp_path / "sr", "--json") == 0
    made = tmp_path / "sr" / "faces_sr.parquet"
    report = json.loads(capsys.readouterr().out)
    assert [each["output"] for each in report["results"]] == [f"{made}/d/{i}" for i in range(7)]
    assert pq.read_schema(made).equals(pq.read_schema(source))
    with open_session(artifact) as session:
        for number, row in enumerate(rows(made)):
            assert (row["id"], row["age"]) == (f"d/{number}", number)
            assert_upscaled(row["image"], FACES[number], session)


def test_images_in_a_struct_as_in_hugging_faces_data_sets(tmp_path, artifact):
    images = [{"bytes": png(face), "path": f"{i}.png"} for i, face in enumerate(FACES[:2])]
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": "{}"},
    )
    table = pa.Table.from_pylist([{"image": image, "label": 5} for image in images], schema)
    pq.write_table(table, tmp_path / "x.parquet")
    assert run(tmp_path / "x.parquet", "--artifact", artifact) == 0
    made = tmp_path / "x_sr.parquet"
    assert pq.read_schema(made).equals(schema, check_metadata=True)
    with open_session(artifact) as session:
        for row, face, image in zip(rows(made), FACES, images, strict=False):
            assert (row["label"], row["image"]["path"]) == (5, image["path"])
            assert_upscaled(row["image"]["bytes"], face, session)


def test_rows_are_written_in_groups_and_in_their_order(tmp_path, artifact, monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1)
    source = write_table(tmp_path / "faces.parquet")
    assert run(source, "--artifact", artifact, "--workers", 4) == 0
    made = pq.ParquetFile(tmp_path / "faces_sr.parquet")
    assert made.num_row_groups == 7
    assert made.read()["id"].to_pylist() == [f"d/{i}" for i in range(7)]


def test_of_a_damaged_file_the_good_rows_are_made_and_again_in_the_next_run(
    tmp_path, artifact, capsys
):
    images = list(map(png, FACES))
    source = write_table(tmp_path / "x.parquet", image=[*images[:4], b"broken", None, images[6]])
    for _ in range(2):
        assert run(source, "--artifact", artifact) == 1
        said = capsys.readouterr().err
        assert "x.parquet/d/4: is not an image" in said
        assert "x.parquet/d/5: has no image" in said
        names = [row["id"] for row in rows(tmp_path / "x_sr.parquet")]
        assert names == ["d/0", "d/1", "d/2", "d/3", "d/6"]
    write_table(source)
    assert run(source, "--artifact", artifact) == 0
    first = (tmp_path / "x_sr.parquet").stat().st_mtime_ns
    assert run(source, "--artifact", artifact) == 0
    assert "1 was done before" in capsys.readouterr().err
    assert (tmp_path / "x_sr.parquet").stat().st_mtime_ns == first


def test_a_damaged_row_group_is_named_and_the_others_are_made(tmp_path, artifact, capsys):
    source = write_table(tmp_path / "x.parquet")
    with pq.ParquetFile(source) as file:
        column = file.metadata.row_group(1).column(1)
        offset, size = column.dictionary_page_offset or column.data_page_offset, 64
    data = bytearray(source.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    source.write_bytes(data)
    assert run(source, "--artifact", artifact) == 1
    assert "x.parquet: row group 1 is damaged after row 3 (" in capsys.readouterr().err
    names = [row["id"] for row in rows(tmp_path / "x_sr.parquet")]
    assert names == ["d/0", "d/1", "d/2", "d/6"]


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({}, ["--image-column", "id"], "expected column id of image files"),
        ({}, ["--image-column", "no"], "expected column no of image files"),
        ({"image": range(7)}, [], "expected one column of image files (binary, or a struct"),
        ({"image": [b""] * 7, "image2": [b""] * 7}, ["--image-column", "image2"], "d/0: has no"),
    ],
)
def test_which_column_has_the_images(tmp_path, artifact, capsys, columns, arguments, message):
    columns = {name: list(values) for name, values in columns.items()}
    source = write_table(tmp_path / "x.parquet", **columns)
    if "image2" in columns:
        write_table(source, **{**columns, "image2": [None] * 6 + [png(FACES[0])]})
    assert run(source, "--artifact", artifact, *arguments) == 1
    assert message in capsys.readouterr().err


def test_what_is_no_parquet_file_leaves_nothing(tmp_path, artifact, capsys):
    whole = write_table(tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-9])
    (tmp_path / "text.parquet").write_bytes(b"text" * 30)
    files = [tmp_path / f"{name}.parquet" for name in ("cut", "text", "gone")]
    assert run(*files, "--artifact", artifact) == 1
    said = capsys.readouterr().err
    assert "cut.parquet: is not a whole parquet file" in said
    assert "text.parquet: is not a whole parquet file" in said
    assert "gone.parquet: not found" in said
    assert not [*tmp_path.glob("*_sr*"), *tmp_path.glob(".*.part*")]


def test_all_results_into_one_archive(tmp_path, artifact):
    source = write_table(tmp_path / "faces.parquet", FACES[:2])
    assert run(source, "--artifact", artifact, "--out", tmp_path / "all.tar") == 0
    with tarfile.open(tmp_path / "all.tar") as archive:
        assert sorted(archive.getnames()) == ["d/0_sr.png", "d/1_sr.png"]
    both = [tmp_path / "all.tar", source, "--artifact", artifact, "--reduce"]
    assert run(*both, "--out", tmp_path / "all.parquet", "--mode", "face") == 0
    made = rows(tmp_path / "all.parquet")
    assert sorted(row["name"] for row in made) == ["d/0", "d/0_sr.png", "d/1", "d/1_sr.png"]
    assert all(decode_image(row["image"], "sr").shape == (128, 128, 3) for row in made)


@pytest.mark.parametrize(
    ("out", "status", "message"),
    [
        ("in/a.parquet", 1, "is an input, and would be overwritten"),
        ("in/all.parquet", 1, "it for an input; end its name in _sr.parquet"),
        ("in/all_sr.parquet", 0, ""),
    ],
)
def test_an_archive_of_all_results_is_no_input(tmp_path, artifact, capsys, out, status, message):
    (tmp_path / "in").mkdir()
    source = write_table(tmp_path / "in" / "a.parquet", FACES[:2])
    before = source.read_bytes()
    inputs = [source] if status and out == "in/a.parquet" else [tmp_path / "in"]
    for _ in range(2):
        asked = [*inputs, "--artifact", artifact, "--overwrite", "--out", tmp_path / out]
        assert run(*asked) == status
        assert message in capsys.readouterr().err
    assert source.read_bytes() == before
    assert status or len(rows(tmp_path / out)) == 2


def test_a_column_of_categories_is_kept(tmp_path, artifact, monkeypatch):
    monkeypatch.setattr(parquet, "READ_ROWS", 2)  # each batch has a dictionary of its own
    names = ["a", "b", "c", "a", "d", "b", "e"]
    source = write_table(
        tmp_path / "x.parquet",
        label=pa.array(names).dictionary_encode(),
        boxes=[[[1, number]] for number in range(7)],
    )
    assert run(source, "--artifact", artifact) == 0
    made = rows(tmp_path / "x_sr.parquet")
    assert [row["label"] for row in made] == names
    assert [row["boxes"] for row in made] == [[[1, number]] for number in range(7)]


def test_without_pyarrow_the_extra_is_named(tmp_path, artifact, monkeypatch, capsys):
    source = write_table(tmp_path / "x.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert run(source, "--artifact", artifact) == 5
    assert "pip install 'aminet-edge[scale]'" in capsys.readouterr().err
