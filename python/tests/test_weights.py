"""Weights by name: downloaded from a server on this machine, converted, and cached."""

import http.server
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import weights_files

import rtformer

WEIGHTS = Path(__file__).parents[2] / "weights/rtformer-slim-camvid.safetensors"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    for name in ["RTFORMER_OFFLINE", "RTFORMER_MIRROR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RTFORMER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path, monkeypatch, cache):
    """A server for a folder, and the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "server")

        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("RTFORMER_MIRROR", f"http://127.0.0.1:{server.server_port}")
    yield tmp_path / "server/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pdparams", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_cached_file_needs_no_network(cache, frame, monkeypatch):
    monkeypatch.setenv("RTFORMER_OFFLINE", "1")
    shutil.copy(WEIGHTS, cache / "slim-cityscapes.safetensors")
    seg = rtformer.Segmenter("slim-cityscapes", "cpu")
    assert seg.weights == str(cache / "slim-cityscapes.safetensors")
    with pytest.raises(rtformer.DownloadError, match="offline mode"):
        rtformer.Segmenter("base-cityscapes", "cpu")


def test_a_file_is_not_a_name(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS, tmp_path / "slim-ade20k")
    assert rtformer.Segmenter("slim-ade20k", "cpu").weights == "slim-ade20k"
    with pytest.raises(FileNotFoundError):
        rtformer.Segmenter("slim-kitti", "cpu")
    assert rtformer.Segmenter("embedded", "cpu").weights == "embedded"


def test_a_name_is_downloaded_and_converted_once(mirror, cache, frame):
    path, asked = mirror
    path.parent.mkdir(parents=True)
    checkpoint, _ = weights_files.read(WEIGHTS)
    wider = {name: values for name, values in checkpoint.items() if name.startswith("seghead") and values.shape[:1] == (11,)}
    assert wider
    for name, values in wider.items():
        checkpoint[name] = np.concatenate([values, values])[:19]
    path.write_bytes(pickle.dumps(checkpoint, protocol=2))

    seg = rtformer.Segmenter("slim-cityscapes", "cpu")
    assert (seg.dataset, len(seg.classes), seg.weights) == ("cityscapes", 19, str(cache / "slim-cityscapes.safetensors"))
    assert seg(frame).mask.shape == (48, 64)
    assert asked == ["/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pdparams"]
    assert [path.name for path in cache.iterdir()] == ["slim-cityscapes.safetensors"]
    rtformer.Segmenter("slim-cityscapes", "cpu")
    assert len(asked) == 1


def test_what_the_server_sends_is_checked(mirror, cache):
    path, _ = mirror
    path.parent.mkdir(parents=True)
    with pytest.raises(rtformer.DownloadError, match="404"):
        rtformer.Segmenter("slim-cityscapes", "cpu")
    path.write_text("<html>Please log in</html>")
    with pytest.raises(rtformer.WeightsError, match="the downloaded file is not the checkpoint"):
        rtformer.Segmenter("slim-cityscapes", "cpu")
    assert list(cache.iterdir()) == []


def test_calibrated_weights_compute_less(program, street, tmp_path):
    calibrated = tmp_path / "calibrated.safetensors"
    done = program("calibrate", "--images", street[-1].parent, "--epsilon", 0.9, "--delta", 0.2, "--bound", "hb", "-o", calibrated)
    assert done.returncode == 0, done
    full, early = rtformer.Segmenter(device="cpu")(street[0]), rtformer.Segmenter(calibrated, adaptive=0.95)(street[0])
    assert full.compute_share == 1.0 and 0.2 < early.compute_share < 0.9
    assert 0.5 < (early.mask == full.mask).mean() < 1.0
    # Without the option, the file is the full network.
    plain = rtformer.Segmenter(calibrated, "cpu")(street[0])
    assert plain.compute_share == 1.0 and np.array_equal(plain.mask, full.mask)
    copy = pickle.loads(pickle.dumps(rtformer.Segmenter(calibrated, adaptive=0.9)))
    assert copy(street[0]).compute_share == early.compute_share
    with pytest.raises(rtformer.WeightsError, match="for a risk of at most 0.9, not 0.1"):
        rtformer.Segmenter(calibrated, adaptive=0.1)
    with pytest.raises(rtformer.WeightsError, match="not calibrated"):
        rtformer.Segmenter(adaptive=0.1)
