"""Mutate a file slightly, so that reading it may fail; each function takes a `random.Random`."""

import bz2
import gzip
import json
import lzma
import struct
import zlib

EXTREMES = (0, 1, 2, 3, 7, 8, 9, 255, 256, 1000, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1,
            2**63 - 1, 2**64 - 1)  # fmt: skip
VALUES = (None, True, False, 0, -1, 1, 0.5, 1e308, -1e308, float("nan"), float("inf"), 2**31, 2**63,
          10**400, "", "x", "x" * 300, "\0", "\ud800", "../../x", "=1+1", "nan", "NaN", "жαz 🎷",
          [], [1], [[]], {}, {"": 1}, ["x"] * 20, [0] * 3)  # fmt: skip
CELLS = ("", "0", "-1", "1e999", "nan", "NA", '"', '""', "'", "x" * 5000, "\0", "=1+1", "é", "a,b",
         "\ufeff", "../x", "\r", "9" * 400, "\u202e")  # fmt: skip
COMPRESSED = ((b"\x1f\x8b", gzip.compress, gzip.decompress),
              (b"BZh", bz2.compress, bz2.decompress),
              (b"\xfd7zXZ\0", lzma.compress, lzma.decompress))  # fmt: skip


def mutate_bytes(rng, content, others):
    """Make one to four changes, anywhere or near the start, where the headers are."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        reach = min(len(content), rng.choice((64, 512, len(content))))
        place = rng.randrange(reach) if reach else 0
        rng.choice((_flip, _cut, _splice, _number, _noise, _repeat, _drop, _digits))(
            rng, content, place, others
        )
    return bytes(content)


def _flip(rng, content, place, others):
    for _ in range(rng.choice((1, 2, 8, 64)) if content else 0):
        content[place] ^= 1 << rng.randrange(8)
        place = rng.randrange(len(content))


def _cut(rng, content, place, others):
    if rng.random() < 0.5 and content:
        place = rng.randrange(len(content))
    del content[place:]


def _splice(rng, content, place, others):
    other = rng.choice(others)
    start = rng.randrange(len(other) + 1)
    end = min(len(other), start + rng.choice((4, 64, 4096)))
    content[place : place + rng.choice((0, end - start))] = other[start:end]


def _number(rng, content, place, others):
    kind = rng.choice("BHIQ")
    order, size = rng.choice("<>"), struct.calcsize(f"={kind}")
    value = rng.choice((*EXTREMES, rng.getrandbits(64))) & (256**size - 1)
    content[place : place + size] = struct.pack(order + kind, value)


def _noise(rng, content, place, others):
    size = rng.choice((1, 4, 32, 512))
    content[place : place + size] = rng.randbytes(size)


def _repeat(rng, content, place, others):
    block = content[place : place + rng.choice((1, 16, 512, 4096))]
    content[place:place] = block * rng.choice((1, 2, 20))


def _drop(rng, content, place, others):
    del content[place : place + rng.choice((1, 2, 16, 512))]


def _digits(rng, content, place, others):
    """Change digits of numbers that are written as text, as in a tar or a CSV."""
    places = [i for i, byte in enumerate(content[place : place + 600]) if 48 <= byte <= 57]
    for i in rng.sample(places, min(len(places), rng.choice((1, 4, 12)))):
        content[place + i] = rng.choice(b"0123456789-.e \0")


def mutate_archive(rng, content, others):
    """As `mutate_bytes`, mostly inside a compressed tar, and mostly with valid checksums."""
    for head, compress, decompress in COMPRESSED:
        if content.startswith(head) and rng.random() < 0.7:
            return compress(mutate_archive(rng, decompress(content), [decompress(content)]))
    content = mutate_bytes(rng, content, others)
    return repair_tar(content) if rng.random() < 0.8 else content


def repair_tar(content):
    """Write a valid checksum into each block that could be a tar header."""
    content = bytearray(content)
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            total = sum(content[start : start + 512])
            content[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(content)


def mutate_png(rng, content, others):
    """As `mutate_bytes`, mostly with valid checksums of the first chunks."""
    content = bytearray(mutate_bytes(rng, content, others))
    place = 8
    while rng.random() < 0.9 and place + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        end = place + 8 + size
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(content)


def mutate_recording(rng, content, others):
    """As `mutate_bytes`, often with valid checksums of the pages of an Ogg."""
    content = mutate_bytes(rng, content, others)
    return repair_ogg(content) if content[:4] == b"OggS" and rng.random() < 0.7 else content


CRC_TABLE = []
for _byte in range(256):
    _crc = _byte << 24
    for _ in range(8):
        _crc = (_crc << 1 ^ (0x04C11DB7 if _crc >> 31 else 0)) & 0xFFFFFFFF
    CRC_TABLE.append(_crc)


def repair_ogg(content):
    """Write a valid checksum into each page of an Ogg."""
    content = bytearray(content)
    place = content.find(b"OggS")
    while 0 <= place <= len(content) - 27:
        lengths = content[place + 27 : place + 27 + content[place + 26]]
        end = place + 27 + len(lengths) + sum(lengths)
        content[place + 22 : place + 26] = bytes(4)
        crc = 0
        for byte in content[place:end]:
            crc = (crc << 8 & 0xFFFFFFFF) ^ CRC_TABLE[crc >> 24 ^ byte]
        struct.pack_into("<I", content, place + 22, crc)
        place = content.find(b"OggS", place + 4)
    return bytes(content)


def mutate_json(rng, content, others):
    """Replace values in a file of JSON or JSON Lines, or mutate its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content, others)
    if rng.random() < 0.02:
        return rng.choice((b"[", b'{"a":')) * 100_000
    lines = [content] if content.startswith(b"{\n") else content.splitlines()
    changed = []
    for line in lines:
        value = json.loads(line)
        for _ in range(rng.choice((1, 1, 2, 5))):
            value = _other_value(rng, value)
        changed.append(json.dumps(value, indent=2 if len(lines) == 1 else None).encode())
    return b"\n".join(changed) + b"\n"


def _other_value(rng, value):
    """Replace, remove or add a value somewhere in `value`."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.05:
        return rng.choice(VALUES)
    value = value.copy()
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    change = rng.random()
    if change < 0.1:
        del value[key]
    elif change < 0.15 and isinstance(value, dict):
        value[rng.choice(("", "new", "\ud800", "x" * 300))] = rng.choice(VALUES)
    else:
        value[key] = _other_value(rng, value[key])
    return value


def mutate_csv(rng, content, others):
    """Replace cells, separators or the encoding of a CSV, or mutate its bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, content, others)
    text = content.decode("utf-8", "replace")
    separator = rng.choice(",,,,;\t")
    rows = [row.split(",") for row in text.split("\n")]
    for _ in range(rng.choice((1, 2, 5))):
        row = rng.choice(rows)
        change = rng.random()
        if change < 0.6:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        elif change < 0.7:
            row.append(rng.choice(CELLS))
        elif change < 0.8:
            row.pop()
            row.extend([] if row else [""])
        else:
            rows.insert(rng.randrange(len(rows)), rng.choice(rows).copy())
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(separator.join(row) for row in rows)
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "cp1252", "utf-16"))
    return text.encode(encoding, "replace")
