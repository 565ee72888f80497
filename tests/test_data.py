"""Data sets: what they hold, and the bad days of downloading."""

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading

import numpy as np
import pytest

from iclrtut import data
from iclrtut.errors import BadRequest, RunFailed

DIGIT = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)


def digest(value):
    return hashlib.sha256(value).hexdigest()


def idx(array):
    head = struct.pack(">HBB", 0, 8, array.ndim)
    head += struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("ICLRTUT_DATA", str(folder))
    return folder


@pytest.fixture
def server():
    """A local server; `answers` maps a path to bytes, a code, or (bytes, length)."""
    answers, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer = answers.get(self.path, 404)
            if isinstance(answer, int):
                self.send_error(answer)
                return
            body, length = answer if isinstance(answer, tuple) else (answer, None)
            self.send_response(200)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,)).start()
        running.answers, running.asked = answers, asked
        running.address = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()


@pytest.fixture
def small_mnist(server, monkeypatch):
    """A set of two arrays and four files in place of MNIST, on the local server."""
    arrays = {
        "train_images": DIGIT,
        "train_labels": np.arange(4, dtype=np.uint8),
        "test_images": DIGIT[:2],
        "test_labels": np.arange(2, dtype=np.uint8),
    }
    files = {data.IDX[key]: idx(array) for key, array in arrays.items()}
    source = data.info("mnist")._replace(
        home=f"{server.address}/one/",
        mirror=f"{server.address}/two/",
        bytes=sum(map(len, files.values())),
        sha256={name: digest(content) for name, content in files.items()},
        arrays={key: digest(array.tobytes()) for key, array in arrays.items()},
    )
    monkeypatch.setitem(data.SOURCES, "mnist", source)
    server.answers.update({f"/one/{name}": body for name, body in files.items()})
    return arrays


def names(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    found = data.load("digits")
    images, labels = load_digits(return_X_y=True)
    assert_equal(
        found,
        {
            "images": images.reshape(-1, 8, 8).astype(np.float32),
            "labels": labels.astype(np.int64),
        },
    )
    assert found["images"].nbytes + found["labels"].nbytes == data.info("digits").bytes
    data.verify("digits")


def test_photographs_are_scikit_images_and_need_no_network(monkeypatch):
    import skimage.data
    from skimage.color import rgb2gray

    monkeypatch.setattr("socket.socket.connect", None)
    found = data.load("photographs")
    assert tuple(found) == data.PICTURES
    for name, picture in found.items():
        theirs = getattr(skimage.data, name)()
        assert (picture.dtype, picture.shape) == (np.uint8, theirs.shape[:2])
        if theirs.ndim == 3:  # other weights of red, green and blue: a few levels
            assert abs(picture - 255 * rgb2gray(theirs)).max() < 25
        else:
            np.testing.assert_array_equal(picture, theirs)
    assert sum(p.nbytes for p in found.values()) == data.info("photographs").bytes


def test_names_and_infos_agree():
    assert data.names() == list(data.SOURCES)
    for name in data.names():
        source = data.info(name)
        assert source.name == name
        assert source.licence and source.about and source.bytes > 0 and source.arrays
        hashes = [*source.sha256.values(), *source.arrays.values()]
        assert all(len(h) == 64 and int(h, 16) >= 0 for h in hashes)
        assert bool(source.mirror) == source.home.startswith("https://")


@pytest.mark.parametrize("call", [data.load, data.info, data.fetch, data.verify])
def test_unknown_name_lists_the_known_ones(call):
    with pytest.raises(BadRequest, match="'mnits': use digits, photographs, mnist, "):
        call("mnits")


def test_folder_is_the_environments_else_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ICLRTUT_DATA", "~/there")
    assert data.folder().name == "there" and data.folder().is_absolute()
    monkeypatch.delenv("ICLRTUT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.folder().name == "iclrtut"


def test_download_then_load_verify_and_no_second_download(home, server, small_mnist):
    assert data.fetch("mnist") == home / "mnist"
    assert names(home) == sorted(data.IDX.values())
    server.answers.clear()
    assert_equal(data.load("mnist"), small_mnist)
    data.verify("mnist")
    assert len(server.asked) == 4


def test_the_second_address_is_used_when_the_first_fails(home, server, small_mnist):
    file = data.IDX["test_images"]
    server.answers[f"/two/{file}"] = server.answers[f"/one/{file}"]
    server.answers[f"/one/{file}"] = 503
    assert_equal(data.load("mnist"), small_mnist)
    assert f"/two/{file}" in server.asked


broken = {
    "404": (404, "answered 404"),
    "cut short": ((b"half", 100_000), "broke off"),
    "other bytes": (b"<html>sign in first</html>", "sent other bytes"),
}


@pytest.mark.parametrize(("answer", "told"), broken.values(), ids=broken.keys())
def test_a_bad_download_is_told_and_leaves_nothing(
    home, server, small_mnist, answer, told
):
    file = data.IDX["train_labels"]
    server.answers[f"/one/{file}"] = server.answers[f"/two/{file}"] = answer
    with pytest.raises(RunFailed, match=f"(?s){told}.*two/.*{told}.*put {file} into"):
        data.load("mnist")
    assert names(home) == [data.IDX["train_images"]]


def test_offline_is_told(home, server, small_mnist, monkeypatch):
    source = data.info("mnist")._replace(
        home="http://127.0.0.1:9/", mirror="http://127.0.0.1:9/"
    )
    monkeypatch.setitem(data.SOURCES, "mnist", source)
    with pytest.raises(RunFailed, match=r"broke off \(ConnectionError\).*network"):
        data.load("mnist")
    assert names(home) == []


def test_full_disk_while_downloading(full_disk, server, small_mnist, monkeypatch):
    monkeypatch.setenv("ICLRTUT_DATA", str(full_disk))
    file = data.IDX["train_images"]
    server.answers[f"/one/{file}"] = bytes(2**20)
    with pytest.raises(RunFailed, match=r"needs [\d,]+ bytes and .* free some space"):
        data.load("mnist")
    assert names(full_disk) == []


def test_folder_without_permission(locked_folder, small_mnist, monkeypatch):
    monkeypatch.setenv("ICLRTUT_DATA", str(locked_folder))
    with pytest.raises(RunFailed, match=r"cannot be read \(Permission denied\)"):
        data.load("mnist")


def test_an_npz_packed_anew_loads_but_is_not_the_recorded_file(home, small_mnist):
    np.savez(home / "mnist.npz", **small_mnist)
    assert_equal(data.load("mnist"), small_mnist)
    source = data.info("mnist")
    source.sha256["mnist.npz"] = "0" * 64
    with pytest.raises(RunFailed, match=r"mnist\.npz is not mnist as recorded"):
        data.verify("mnist")
    source.sha256["mnist.npz"] = digest((home / "mnist.npz").read_bytes())
    data.verify("mnist")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _damages(home, arrays):
    good = io.BytesIO()
    np.savez(good, **arrays)
    flipped = arrays | {"test_labels": arrays["test_labels"] + 1}
    other, lacking, objects = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(other, **flipped)
    np.savez(lacking, train_images=DIGIT)
    np.savez(objects, train_images=[Trap(home / "mark"), None])
    return {
        "pickle": pickle.dumps(Trap(home / "mark")),
        "pickle inside": objects.getvalue(),
        "cut short": good.getvalue()[:-200],
        "empty": b"",
        "text": b"<html>",
        "other values": other.getvalue(),
        "array missing": lacking.getvalue(),
    }


@pytest.mark.parametrize("which", list(_damages(data.folder(), {"test_labels": DIGIT})))
def test_a_damaged_npz_is_told_and_never_unpickled(home, small_mnist, which):
    damaged = _damages(home, small_mnist)[which]
    (home / "mnist.npz").write_bytes(damaged)
    with pytest.raises(RunFailed, match=r"is not mnist as recorded \(.*delete it"):
        data.load("mnist")
    assert (home / "mnist.npz").read_bytes() == damaged
    assert not (home / "mark").exists()


def test_a_damaged_archive_is_told(home, server, small_mnist):
    archive = data.fetch("mnist") / data.IDX["train_images"]
    archive.write_bytes(archive.read_bytes()[:-5])
    for call in (data.load, data.verify):
        with pytest.raises(RunFailed, match="its SHA-256 is another"):
            call("mnist")


def test_a_set_without_an_address_names_file_and_folder(home):
    said = rf"no public address.*made from github\.com/.*put clothing32.npz into {home}"
    with pytest.raises(RunFailed, match=said):
        data.load("clothing32")
    with pytest.raises(RunFailed, match=f"notmnist is not in {home}: fetch it"):
        data.verify("notmnist")


# What comes with the package or its libraries; `quick` loads no other set.
EMBEDDED = (
    "digits",
    "photographs",
    "tuebingen_pairs",
    "omniglot_small",
    "audio_clips_small",
)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_need_no_folder_and_no_network(home, name):
    """A file of that name in the reader's folder is not looked at."""
    (home / f"{name}.npz").write_bytes(b"anything")
    data.verify(name)
    assert data.place(data.info(name)).startswith("comes with ")


def test_every_other_set_has_a_home_or_says_that_it_has_none():
    for source in (data.info(name) for name in data.names() if name not in EMBEDDED):
        expected = f"from {source.home}" if source.mirror else "has no public address"
        assert data.place(source).startswith(expected)


def test_a_damaged_copy_in_the_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SHIPPED", tmp_path)
    (tmp_path / "tuebingen_pairs.npz").write_bytes(b"")
    with pytest.raises(RunFailed, match="install iclrtut anew"):
        data.load("tuebingen_pairs")


def test_cause_effect_pairs_lie_one_behind_the_other():
    found = data.load("tuebingen_pairs")
    ends = found["offsets"]
    assert ends[0] == 0 and (np.diff(ends) >= 20).all()
    assert ends[-1] == len(found["cause"]) == len(found["effect"])
    for key in ("pair_id", "weight", "cause_name", "effect_name", "dataset"):
        assert len(found[key]) == len(ends) - 1 == 99


def test_the_small_clips_have_a_pitch_for_each_frame():
    found = data.load("audio_clips_small")
    assert list(found["names"]) == ["flute_A4", "cello_phrase"]
    assert (
        found["offsets"].tolist()
        == [0, 19_200, 57_600]
        == [160 * frame for frame in (0, 120, len(found["f0"]))]
    )
    assert found["samples"].dtype == np.int16 and found["sample_rate"] == 16_000
    flute, cello = np.split(found["f0"], [120])
    assert 430 < flute.min() < flute.max() < 450 and 340 < cello.min() < 360
    assert all("sounds/" in source for source in found["source"])


def test_a_fingerprint_knows_names_types_shapes_and_values():
    base = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"])}
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"]},
        base | {"a": base["a"].astype(np.float32)},
        base | {"a": base["a"].T},
        base | {"a": base["a"].reshape(3, 2)},
        base | {"a": base["a"] + 1e-15},
        base | {"b": np.array(["x", "yy"])},
        {},
    ]
    found = [data.fingerprint(each) for each in (base, *others)]
    assert len(set(found)) == len(found)
    again = {"b": base["b"].copy(), "a": np.asfortranarray(base["a"])}
    assert data.fingerprint(again) == found[0]


def test_what_is_loaded_is_noted():
    data.loaded.clear()
    digits = data.load("digits")
    data.pictures(1, 8, 2, np.random.default_rng(0))
    assert list(data.loaded) == ["digits", "photographs"]
    assert data.loaded["digits"] == data.fingerprint(digits)


def test_cifar_from_the_official_archive(home, server, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.uint8) % 10
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number in (5, 1, 3, 0, 4, 2):  # 0 stands for the test batch
            name = f"data_batch_{number}.bin" if number else "test_batch.bin"
            body = b"".join(
                bytes([labels[i]]) + pixels[i].transpose(2, 0, 1).tobytes()
                for i in (2 * number, 2 * number + 1)
            )
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    server.answers[f"/{data.CIFAR}"] = packed.getvalue()
    source = data.info("cifar10")._replace(
        home=f"{server.address}/", sha256={data.CIFAR: digest(packed.getvalue())}
    )
    monkeypatch.setitem(data.SOURCES, "cifar10", source)
    expected = {
        "train_images": pixels[2:],
        "train_labels": labels[2:],
        "test_images": pixels[:2],
        "test_labels": labels[:2],
    }
    assert_equal(data.load("cifar10"), expected)


def test_cifar_from_jpegs(home, monkeypatch):
    from PIL import Image

    arrays, expected = {}, {}
    for split, level in (("train", 40), ("test", 200)):
        files = []
        for i in range(3):
            file = io.BytesIO()
            flat = np.full((32, 32, 3), level + i, np.uint8)
            Image.fromarray(flat).save(file, "JPEG", quality=75)
            files.append(file.getvalue())
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = np.arange(3, dtype=np.uint8)
        expected[split] = level + np.arange(3)
    np.savez(home / "cifar10.npz", **arrays)
    recorded = {key: digest(array.tobytes()) for key, array in arrays.items()}
    source = data.info("cifar10")._replace(arrays=recorded)
    monkeypatch.setitem(data.SOURCES, "cifar10", source)
    assert data.fetch("cifar10").suffix == ".npz"
    found = data.load("cifar10")
    for split, levels in expected.items():
        images = found[f"{split}_images"].astype(int)
        assert images.shape == (3, 32, 32, 3)
        assert abs(images - levels[:, None, None, None]).max() <= 2
        np.testing.assert_array_equal(found[f"{split}_labels"], [0, 1, 2])
