"""`eval` equals the command line's, and its errors are a Python programmer's."""

import json

import numpy as np
import pytest
from PIL import Image

import rtformer


@pytest.fixture(scope="module")
def labelled(seg, street, tmp_path_factory):
    """Photos, and labels that agree with the masks in most pixels."""
    root = tmp_path_factory.mktemp("labelled")
    images, labels = root / "images", root / "labels"
    images.mkdir(), labels.mkdir()
    for path in street[:3]:
        (images / path.name).write_bytes(path.read_bytes())
        mask = seg(path).mask.copy()
        mask[: len(mask) // 4] = 4
        mask[:10] = 255
        Image.fromarray(mask).save(labels / f"{path.stem}.png")
    return images, labels


def test_the_measures_are_those_of_the_command_line(seg, labelled, program):
    images, labels = labelled
    done = program("eval", "--images", images, "--labels", labels, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    measures = seg.eval(images, labels)
    assert measures.pop("errors") == []
    assert measures == {key: expected[key] for key in measures}
    assert 0 < measures["miou"] < 1 and measures["images"] == 3
    assert np.array(measures["confusion"]).sum() == measures["pixels"]


def test_lists_of_paths_are_pairs(seg, labelled):
    images, labels = (sorted(folder.iterdir()) for folder in labelled)
    assert seg.eval(images, labels) == seg.eval(*labelled)
    assert seg.eval(images, labels[::-1])["miou"] < seg.eval(*labelled)["miou"]


def test_without_confidence_there_is_no_calibration(labelled):
    seg = rtformer.Segmenter(device="cpu", confidence=False)
    assert seg.eval(*labelled)["ece"] is None


def test_a_bad_photo_is_counted_and_named(seg, labelled, tmp_path):
    images, labels = (sorted(folder.iterdir()) for folder in labelled)
    (tmp_path / "bad.jpg").write_text("no photo")
    measures = seg.eval([tmp_path / "bad.jpg", images[0]], labels[:2][::-1][:1] + labels[:1])
    assert (measures["images"], measures["failed"]) == (1, 1)
    assert "bad.jpg" in measures["errors"][0]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (("none", "none"), {}, rtformer.NotFoundError, "none: cannot be read"),
        ((["a.jpg"], []), {}, rtformer.InputError, "1 photos have 0 labels"),
        (([], []), {}, rtformer.InputError, "no photos"),
        ((7, 8), {}, TypeError, None),
        (("a", "b"), {"label_kind": "colour"}, rtformer.InputError, "colour"),
        ((["a"], ["b"]), {"label_kind": "train-id", "first_id": 1}, rtformer.InputError, "label kind train-id cannot"),
    ],
)
def test_wrong_arguments(seg, arguments, options, error, text):
    with pytest.raises(error, match=text):
        seg.eval(*arguments, **options)


def test_errors_name_no_flags(seg, labelled, tmp_path):
    """Python has no flags, so the library's errors speak of the option."""
    images, _ = labelled
    with pytest.raises(rtformer.InputError, match="label suffix") as caught:
        seg.eval(images, tmp_path)
    Image.fromarray(np.full((360, 480), 77, np.uint8)).save(tmp_path / "a.png")
    errors = seg.eval([sorted(images.iterdir())[0]], [tmp_path / "a.png"])["errors"]
    assert "id 77" in errors[0]
    assert "--" not in str(caught.value) + errors[0]


def test_ids_can_be_ignored_and_shifted(seg, labelled, tmp_path):
    photo = sorted(labelled[0].iterdir())[0]
    label = np.full((360, 480), 77, np.uint8)
    label[:180] = 4
    Image.fromarray(label).save(tmp_path / "a.png")
    for ignored in [77, [77], (77, 90)]:
        measures = seg.eval([photo], [tmp_path / "a.png"], ignore_id=ignored, first_id=1)
        assert (measures["errors"], measures["ignored_share"]) == ([], 0.5)
        assert np.array(measures["confusion"])[3].sum() == 180 * 480
