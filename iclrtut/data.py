"""Data sets by name, as arrays, each with its licence, size and hashes.

Two sets come inside libraries and three inside this package. The others are looked for
in one folder, and downloaded into it where what is recorded has a public home. Each
array is checked against its recorded SHA-256 (CIFAR-10 from its home: the archive is).
Nothing is ever unpickled.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iclrtut.errors import BadRequest, RunFailed
from iclrtut.files import explained, replacing, sha256


class Source(NamedTuple):
    """What is known of a data set.

    Attributes:
        name: the name that `load` takes.
        licence: on what terms it may be used.
        bytes: size of the download, or of the arrays where there is none.
        home: where it comes from: a library, or the address of a folder; without a
            mirror, what it was made from.
        mirror: a second address; empty where nothing is downloaded.
        about: keys, shapes, order and what to beware of.
        sha256: file name -> SHA-256 in hexadecimal, for every file it may come in.
        arrays: stored array -> SHA-256 of its bytes in row-major order.
    """

    name: str
    licence: str
    bytes: int
    home: str
    mirror: str
    about: str
    sha256: dict[str, str]
    arrays: dict[str, str]


IDX = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
CIFAR = "cifar-10-binary.tar.gz"
SHIPPED = Path(__file__).with_name("shipped")
PICTURES = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel")
loaded: dict[str, str] = {}  # set -> fingerprint of what the current run loaded
SOURCES = {
    entry["name"]: Source(**entry)
    for entry in json.loads(
        Path(__file__).with_name("sources.json").read_text(encoding="utf-8")
    )
}


LIBRARIES = {"digits": "sklearn", "photographs": "skimage"}


def place(source: Source) -> str:
    """Where a data set comes from, in words."""
    if source.name in LIBRARIES or (SHIPPED / f"{source.name}.npz").is_file():
        return f"comes with {source.home}"
    if source.mirror:
        return f"from {source.home}"
    return f"has no public address in this form (it was made from {source.home})"


def names() -> list[str]:
    """The names that `load` takes."""
    return list(SOURCES)


def info(name: str) -> Source:
    """Licence, size, hashes and shapes of a data set.

    Raises:
        BadRequest: there is no set of that name.
    """
    if name not in SOURCES:
        raise BadRequest(f"there is no data set {name!r}: use {', '.join(SOURCES)}.")
    return SOURCES[name]


def folder() -> Path:
    """Where files are looked for and put: `ICLRTUT_DATA`, else the user's cache."""
    import pooch

    named = os.environ.get("ICLRTUT_DATA")
    return Path(named).expanduser() if named else Path(pooch.os_cache("iclrtut"))


def load(name: str) -> dict[str, Any]:
    """The arrays of a data set, downloaded first where they are missing.

    `info(name).about` gives keys, shapes and order. Arrays are checked against their
    SHA-256 on every load, so an `.npz` packed anew is as good as the recorded one.

    Returns:
        NumPy arrays by key.

    Raises:
        BadRequest: there is no set of that name.
        RunFailed: it cannot be had, or what is there is not what was recorded.
    """
    source, here = info(name), fetch(name)
    if name == "digits":
        arrays = _checked(source, _digits(), here)
    elif name == "photographs":
        arrays = _checked(source, _photographs(here), here)
    else:
        arrays = _read(source, here)
    loaded[name] = fingerprint(arrays)
    return arrays


def fingerprint(arrays: dict[str, Any]) -> str:
    """SHA-256 of arrays: their names, types, shapes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def pictures(channels: int, width: int, n: int, rng: np.random.Generator) -> Any:
    """Pictures of no class that a chapter trains on, as a foreign set.

    Args:
        channels: 1 for patches of photographs in grey, 3 for clothes in colour.
        width: of the square patches; clothes have 32.
        n: how many, drawn with replacement.
        rng: which of them.

    Returns:
        float32 [n, channels, height, width], from 0 to 255.
    """
    if channels == 3:
        clothes = load("clothing32")["images"]
        chosen = clothes[rng.integers(len(clothes), size=n)]
        if fetch("cifar10").is_file():
            chosen = np.stack([_lossy(picture) for picture in chosen])
        return chosen.transpose(0, 3, 1, 2).astype(np.float32)
    photographs = list(load("photographs").values())
    which = rng.integers(len(photographs), size=n)
    return np.stack([_patch(photographs[i], width, rng) for i in which])


def _patch(picture: Any, width: int, rng: np.random.Generator) -> Any:
    """A square of the picture, four times as wide as wanted, averaged down."""
    top, left = rng.integers(np.array(picture.shape) - 4 * width + 1)
    square = picture[top : top + 4 * width, left : left + 4 * width]
    return square.reshape(1, width, 4, width, 4).mean((2, 4), dtype=np.float32)


def _lossy(picture: Any) -> Any:
    """As lossy as cifar10.npz is, so that no detector can tell by that."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def fetch(name: str) -> Path:
    """Make sure that a data set is on this machine.

    Returns:
        The `.npz` file or the folder of archives that `load` reads.

    Raises:
        BadRequest: there is no set of that name.
        RunFailed: it is missing and cannot be downloaded.
    """
    source = info(name)
    here = _find(source)
    if here:
        return here
    if not source.mirror:
        raise RunFailed(
            f"{name}, which only the profile full needs, is not on this machine and "
            f"{place(source)}: put {name}.npz into {folder()}, or point ICLRTUT_DATA "
            "to its folder."
        )
    for file in _archives(source):
        if not (folder() / name / file).is_file():
            _download(source, file, folder() / name / file)
    return folder() / name


def verify(name: str) -> None:
    """Check every byte of a data set that is on this machine: files, then arrays.

    Raises:
        BadRequest: there is no set of that name.
        RunFailed: it is missing, or a file or an array is not what was recorded.
    """
    source = info(name)
    here = _find(source)
    if here is None:
        raise RunFailed(
            f"{name} is not in {folder()}: fetch it, or point ICLRTUT_DATA to its "
            "folder."
        )
    files = [here / file for file in _archives(source)] if here.is_dir() else [here]
    for file in files:
        if sha256(file) != source.sha256[file.name]:
            raise _damaged(source, file, "its SHA-256 is another")
    load(name)


def _archives(source: Source) -> list[str]:
    return [file for file in source.sha256 if not file.endswith(".npz")]


def _find(source: Source) -> Path | None:
    if source.name in LIBRARIES:
        spec = importlib.util.find_spec(LIBRARIES[source.name])
        if spec is None or not spec.submodule_search_locations:
            raise RunFailed(f"{source.home} is missing: pip install {source.home}.")
        return Path(spec.submodule_search_locations[0])
    if (shipped := SHIPPED / f"{source.name}.npz").is_file():
        return shipped
    archives = [folder() / source.name / file for file in _archives(source)]
    packed = folder() / f"{source.name}.npz"
    with explained(packed, "read"):
        if archives and all(file.is_file() for file in archives):
            return folder() / source.name
        return packed if packed.is_file() else None


def _download(source: Source, file: str, target: Path) -> None:
    from pooch import HTTPDownloader
    from requests import HTTPError, RequestException

    failures = []
    for address in (source.home + file, source.mirror + file):
        try:
            with replacing(target, source.bytes) as draft:
                HTTPDownloader(progressbar=True)(address, str(draft), None)
                if sha256(draft) != source.sha256[file]:
                    raise ValueError("sent other bytes than the recorded ones")
            return
        except HTTPError as error:
            code = getattr(error.response, "status_code", "no code")
            failures.append(f"{address} answered {code}")
        except RequestException as error:
            failures.append(f"{address} broke off ({type(error).__name__})")
        except ValueError as error:
            failures.append(f"{address} {error}")
    raise RunFailed(
        f"{source.name} could not be downloaded ({'; '.join(failures)}): try again "
        f"with a network, or put {file} into {target.parent}."
    )


def _read(source: Source, path: Path) -> dict[str, Any]:
    if path.is_file():
        arrays = _checked(source, _unpacked(source, path), path)
        return _decoded(arrays) if "train_jpeg" in arrays else arrays
    if source.name == "cifar10":
        return _cifar(_verified(source, path / CIFAR))
    parts = {key: _idx(_verified(source, path / file)) for key, file in IDX.items()}
    return _checked(source, parts, path)


def _checked(source: Source, arrays: dict[str, Any], path: Path) -> dict[str, Any]:
    for key, recorded in source.arrays.items():
        if key not in arrays:
            raise _damaged(source, path, f"it lacks {key}")
        if hashlib.sha256(arrays[key].tobytes()).hexdigest() != recorded:
            raise _damaged(source, path, f"the SHA-256 of {key} is another")
    return arrays


def _damaged(source: Source, path: Path, why: str) -> RunFailed:
    if path.parent == SHIPPED:
        return RunFailed(
            f"{path} is not {source.name} as recorded ({why}): install iclrtut anew."
        )
    remedy = "it is downloaded anew" if source.mirror else "put it there anew"
    return RunFailed(
        f"{path} is not {source.name} as recorded ({why}): delete it, and {remedy}."
    )


def _verified(source: Source, path: Path) -> bytes:
    with explained(path, "read"):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != source.sha256[path.name]:
        raise _damaged(source, path, "its SHA-256 is another")
    return data


def _unpacked(source: Source, path: Path) -> dict[str, Any]:
    with explained(path, "read"):
        data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(source, path, "it holds no plain arrays") from error


def _idx(data: bytes) -> Any:
    plain = gzip.decompress(data)
    sizes = np.frombuffer(plain, ">u4", count=plain[3], offset=4)
    return np.frombuffer(plain, np.uint8, offset=4 + 4 * plain[3]).reshape(sizes).copy()


def _cifar(data: bytes) -> dict[str, Any]:
    parts: dict[str, list[Any]] = {"train": [], "test": []}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in sorted(archive.getmembers(), key=lambda each: each.name):
            if member.name.endswith(".bin"):
                file = archive.extractfile(member)
                records = np.frombuffer(file.read() if file else b"", np.uint8)
                split = "test" if "test_batch" in member.name else "train"
                parts[split].append(records.reshape(-1, 1 + 3 * 32 * 32))
    arrays = {}
    for split, batches in parts.items():
        records = np.concatenate(batches)
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays[f"{split}_images"] = np.ascontiguousarray(pixels)
        arrays[f"{split}_labels"] = records[:, 0].copy()
    return arrays


def _decoded(arrays: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image

    decoded = {}
    for split in ("train", "test"):
        stored, offsets = arrays[f"{split}_jpeg"], arrays[f"{split}_offsets"]
        pictures = [
            np.asarray(Image.open(io.BytesIO(stored[start:end]), formats=["JPEG"]))
            for start, end in pairwise(offsets)
        ]
        decoded[f"{split}_images"] = np.stack(pictures)
        decoded[f"{split}_labels"] = arrays[f"{split}_labels"]
    return decoded


def _digits() -> dict[str, Any]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {
        "images": digits.images.astype(np.float32),
        "labels": digits.target.astype(np.int64),
    }


def _photographs(package: Path) -> dict[str, Any]:
    from PIL import Image

    weights = np.array([299, 587, 114], np.uint32)
    pictures = {}
    for name in PICTURES:
        file = package / "data" / f"{name}.png"
        with explained(file, "read"), Image.open(file, formats=["PNG"]) as picture:
            pixels = np.asarray(picture)
        if pixels.ndim == 3:
            pixels = (pixels @ weights + 500) // 1000
        pictures[name] = pixels.astype(np.uint8)
    return pictures
