"""Small ICC profiles, made by hand: Display P3's primaries, or gray with a gamma of its own."""

import struct

# Display P3, adapted to D50: the columns of red, green and blue.
P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
D50 = (0.9642, 1.0, 0.8249)


def _xyz(value):
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(part * 65536) for part in value))


def _gamma(value):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def _description(text):
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(78 + -len(data) % 4)


def _profile(space, tags, padding=0):
    tags = {b"desc": _description("test"), b"wtpt": _xyz(D50), **tags}
    offset = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data
    body += bytes(padding)
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", *(round(part * 65536) for part in D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def display_p3(padding=0):
    """An RGB profile; `padding` bytes more make it as large as one likes."""
    colors = {b"rXYZ": P3[0], b"gXYZ": P3[1], b"bXYZ": P3[2]}
    tags = {name: _xyz(value) for name, value in colors.items()}
    tags |= {name: _gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"RGB ", tags, padding)


def gray(gamma):
    return _profile(b"GRAY", {b"kTRC": _gamma(gamma)})
