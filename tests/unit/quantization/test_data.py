"""Data as users name it: what loads, and what each mistake is answered with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq.errors import DataError
from edgeq.quantization.data import load_data
from edgeq.quantization.doctor import compare_with_training, examine, fit_to_model


class Spec:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


X = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def test_npz_npy_csv_and_arrays_give_the_same_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    np.save(tmp_path / "d.npy", X)
    rows = ["a,b,c,d,y", *(",".join([*(repr(float(v)) for v in x), str(y)]) for x, y in zip(X, Y, strict=True))]
    (tmp_path / "d.csv").write_text("\n".join(rows))
    for data in (tmp_path / "d.npz", tmp_path / "d.csv", (X, Y), {"x": X, "y": Y}):
        loaded = load_data(data)
        np.testing.assert_array_equal(loaded.inputs["x"], X)
        assert loaded.labels is not None
        np.testing.assert_array_equal(loaded.labels, Y)
    unlabelled = load_data(tmp_path / "d.npy")
    np.testing.assert_array_equal(unlabelled.inputs["x"], X)
    assert unlabelled.labels is None


def test_a_function_by_name_yields_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\ndef pairs():\n    for i in range(5):\n        yield np.full(3, i), i % 2\n"
        "def broken():\n    raise KeyError('no camera')\n    yield\ndef nothing():\n    return iter(())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    loaded = load_data("my_samples:pairs")
    assert loaded.inputs["x"].shape == (5, 3)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1, 0, 1, 0]
    for name, code in (
        ("broken", "data-function-failed"),
        ("nothing", "data-empty"),
        ("absent", "data-not-found"),
    ):
        with pytest.raises(DataError) as caught:
            load_data(f"my_samples:{name}")
        assert caught.value.code == code


def test_images_of_sub_folders_are_labelled_and_resized(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for label, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / label).mkdir()
        for i in range(2):
            image.new("RGB", (8 + i, 6), colour).save(tmp_path / label / f"{i}.png")
    loaded = load_data(tmp_path, image_shape=(4, 5, 3))
    assert loaded.inputs["x"].shape == (4, 4, 5, 3)
    assert loaded.inputs["x"].dtype == np.uint8
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 0, 1, 1]
    assert loaded.inputs["x"][0, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(DataError) as caught:
        load_data(tmp_path, image_shape=(40,))
    assert caught.value.code == "data-shape"


def _pickled(path: Path) -> Path:
    np.savez(path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    return path / "p.npz"


def _text(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return write


def _empty_npz(path: Path) -> Path:
    np.savez(path / "e.npz", x=np.zeros((0, 4)))
    return path / "e.npz"


def _words(path: Path) -> Path:
    np.savez(path / "w.npz", x=np.array(["yes", "no"]))
    return path / "w.npz"


def _labels_short(path: Path) -> Path:
    np.savez(path / "l.npz", x=X, y=Y[:-1])
    return path / "l.npz"


def _fractional_labels(path: Path) -> Path:
    np.savez(path / "f.npz", x=X, y=Y + 0.5)
    return path / "f.npz"


def _empty_folder(path: Path) -> Path:
    (path / "none").mkdir()
    return path / "none"


def _not_an_image(path: Path) -> Path:
    pytest.importorskip("PIL.Image")
    (path / "images").mkdir()
    (path / "images" / "a.png").write_bytes(b"no picture")
    return path / "images"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path / "absent.npz", "data-not-found"),
        (_empty_npz, "data-empty"),
        (_pickled, "data-pickled"),
        (_text("t.npz", b"PK\x03\x04 and nothing more"), "data-damaged"),
        (_text("t.npz", b"no archive at all"), "data-damaged"),
        (_text("t.npy", b"\x93NUMPY\x01\x00\xff\xff"), "data-damaged"),
        (_text("t.csv", b"1,2,3\n4,5\n"), "data-damaged"),
        (_text("t.csv", b"a,b\n1,\xff\xfe\n"), "data-damaged"),
        (_text("t.csv", b"a,b\n"), "data-empty"),
        (_text("t.wav", b"RIFF"), "data-unusable"),
        (_words, "data-type"),
        (_labels_short, "labels-unusable"),
        (_fractional_labels, "labels-unusable"),
        (_empty_folder, "data-empty"),
        (_not_an_image, "data-damaged"),
        (lambda _: 42, "data-unusable"),
        (lambda _: [np.zeros(3), np.zeros(4)], "data-shape"),
    ],
)
def test_each_mistake_has_its_code(tmp_path: Path, make: Callable[[Path], object], code: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(make(tmp_path))
    assert caught.value.code == code
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("array", "spec", "code"),
    [
        (np.zeros((3, 5)), Spec("a", (4,)), "data-shape"),
        (np.zeros((3, 2, 2)), Spec("a", (4, 1)), "data-shape"),
        (np.full((3, 4), np.nan), Spec("a", (4,)), "data-not-finite"),
        (np.full((3, 4), 1e300), Spec("a", (4,)), "data-not-finite"),
        (np.full((3, 4), 0.5), Spec("a", (4,), "int32"), "data-type"),
    ],
)
def test_data_that_do_not_fit_the_model(array: np.ndarray, spec: Spec, code: str) -> None:
    with pytest.raises(DataError) as caught:
        fit_to_model(load_data(array), [spec])
    assert caught.value.code == code


def test_inputs_are_matched_by_name_not_by_order() -> None:
    data = load_data({"b": X, "a": X[:, :1]})
    first, second = fit_to_model(data, [Spec("a", (1,)), Spec("b", (4,))])
    np.testing.assert_array_equal(first, X[:, :1])
    np.testing.assert_array_equal(second, X)
    with pytest.raises(DataError) as caught:
        fit_to_model(data, [Spec("a", (1,)), Spec("c", (4,))])
    assert caught.value.code == "data-inputs"


def _codes(array: np.ndarray, labels: np.ndarray | None = None) -> set[str]:
    return {w.code for w in examine([array], [Spec("a", array.shape[1:])], labels, "test")}


def test_the_doctor_finds_what_is_doubtful_and_is_silent_otherwise() -> None:
    rng = np.random.default_rng(1)
    good = rng.normal(size=(200, 6, 6, 2)).clip(-3, 3)
    assert _codes(good) == set()
    assert "few-samples" in _codes(good[:5])
    assert "samples-equal" in _codes(np.repeat(good[:1], 30, axis=0))
    spike = good.copy()
    spike[0, 0, 0, 0] = 500
    assert "outliers" in _codes(spike)
    still = good.copy()
    still[..., 1] = 0.25
    assert "channel-constant" in _codes(still)
    growing = good * np.linspace(0.1, 1, 200)[:, None, None, None]
    assert "ranges-still-moving" in _codes(growing)
    assert "classes-missing" in _codes(good, np.where(np.arange(200) % 3 == 1, 0, np.arange(200) % 3))
    with pytest.raises(DataError) as caught:
        _codes(np.full((30, 4), 7.0))
    assert caught.value.code == "data-constant"


@pytest.mark.parametrize(("factor", "warned"), [(1.0, False), (1 / 255, True), (255.0, True)])
def test_a_second_or_missing_normalization_is_seen_by_the_first_batch_normalization(
    factor: float, warned: bool
) -> None:
    mean, variance = np.array([0.4, 0.5, 0.3]), np.array([0.04, 0.06, 0.05])
    found = compare_with_training("norm", mean * factor, variance * factor**2, mean, variance)
    assert (found is not None) == warned
