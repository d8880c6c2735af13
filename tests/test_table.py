"""Tables align figures to the right, as Markdown and as text."""

from benchmarks.harness.table import markdown_table, text_table

ROWS = [("a.onnx", "4.20", ""), ("longer.onnx", "-0.1", "2.00x")]


def test_markdown_has_a_rule_that_aligns_figures():
    assert markdown_table(("file", "MB", "speed"), ROWS).splitlines() == [
        "| file | MB | speed |",
        "| --- | ---: | ---: |",
        "| a.onnx | 4.20 |  |",
        "| longer.onnx | -0.1 | 2.00x |",
    ]


def test_text_has_columns_as_wide_as_their_widest_cell():
    assert text_table(("file", "MB", "speed"), ROWS).splitlines() == [
        "file           MB  speed",
        "a.onnx       4.20",
        "longer.onnx  -0.1  2.00x",
    ]


def test_a_table_may_be_empty():
    assert text_table(("file",), []) == "file"
    assert markdown_table(("file",), []) == "| file |\n| --- |"
