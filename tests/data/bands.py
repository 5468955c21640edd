"""Writes `bands/`: small TIFFs with bands, and with samples of every width, by tifffile. Run: python tests/data/bands.py

The sample of band `b` in column `x` and row `y` is `v = (37 b + 5 y + 3 x) % 256`, stored as `v` (8 bits), `256 v + 99` (16 bits), `v - 128` (signed) or
`v / 127.5 - 1` (floats).
"""

import pathlib

import numpy as np
import tifffile

OUT = pathlib.Path(__file__).parent / "bands"


def bands(count):
    b, y, x = np.mgrid[:count, :15, :20]
    return (37 * b + 5 * y + 3 * x) % 256


def save(name, data, **options):
    tifffile.imwrite(OUT / name, data, metadata=None, software=False, **options)


def main():
    OUT.mkdir(exist_ok=True)
    six, five, one = bands(6), bands(5), bands(1)[0]
    chunky = np.moveaxis(six, 0, 2)
    deep = (256 * chunky + 99).astype("uint16")
    floats = (chunky / 127.5 - 1).astype("float32")
    save("u16_strips.tif", deep, photometric="minisblack", planarconfig="contig", rowsperstrip=4)
    save("u16_big_tiff.tif", deep, photometric="minisblack", planarconfig="contig", bigtiff=True)
    save("u8_planes_tiles.tif", six.astype("uint8"), photometric="minisblack", planarconfig="separate", tile=(16, 16))
    save("u8_rgb_and_two.tif", np.moveaxis(five, 0, 2).astype("uint8"), photometric="rgb", planarconfig="contig",
         extrasamples=["unspecified"] * 2, byteorder=">")
    save("f32_deflate_tiles.tif", floats, photometric="minisblack", planarconfig="contig", tile=(16, 16), compression="zlib")
    save("f32_grey.tif", (one / 127.5 - 1).astype("float32"), photometric="minisblack", rowsperstrip=4)
    save("f64_grey.tif", one / 127.5 - 1, photometric="minisblack", byteorder=">")
    save("i16_grey.tif", (one - 128).astype("int16"), photometric="minisblack", rowsperstrip=4)
    save("u8_rgb_tiles.tif", np.moveaxis(bands(3), 0, 2).astype("uint8"), photometric="rgb", tile=(16, 16))


if __name__ == "__main__":
    main()
