"""Unpacking an archive that came from elsewhere: nothing outside the target, no bombs, all or nothing."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from data_contracts.errors import DatasetError

MAX_FILES = 200_000
MAX_BYTES = 60_000_000_000
MAX_RATIO = 100  # photographs hardly shrink; masks do, but they are small
RATIO_FREE_BYTES = 50_000_000
COPY_BYTES = 1 << 20


def unpack_category(archive: Path, target: Path) -> None:
    """Unpack a zip so that `target` is the directory with train/ and test/, however deep it lies in the archive.

    It is unpacked beside `target` and moved there when complete. Raises DatasetError, and leaves nothing behind, for a
    file that is no zip or damaged, for entries that lead outside or are links or encrypted, for archives that are
    larger than photographs could be, and where there is not exactly one directory with train/ and test/.
    """
    unfinished = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            _unpack(file, unfinished, archive.name)
        found = [path.parent for path in sorted(unfinished.rglob("train")) if (path.parent / "test").is_dir()]
        if len(found) != 1:
            raise DatasetError(f"{archive.name} holds {len(found)} directories with train/ and test/, expected one")
        found[0].replace(target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DatasetError(f"{archive.name} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack(file: zipfile.ZipFile, directory: Path, name: str) -> None:
    entries = [entry for entry in file.infolist() if not entry.filename.startswith("__MACOSX/")]
    if len(entries) > MAX_FILES:
        raise DatasetError(f"{name} holds {len(entries)} entries, more than {MAX_FILES}; it is not unpacked")
    for entry in entries:
        _check_entry(entry, name)
    budget = min(MAX_BYTES, max(RATIO_FREE_BYTES, MAX_RATIO * sum(entry.compress_size for entry in entries)))
    directory.mkdir(parents=True)
    for entry in entries:
        path = directory.joinpath(*PurePosixPath(entry.filename).parts)
        if entry.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with file.open(entry) as source, path.open("wb") as target:
            while chunk := source.read(COPY_BYTES):  # the sizes in the archive's directory may lie
                budget -= len(chunk)
                if budget < 0:
                    raise DatasetError(f"{name} unpacks to far more than photographs would; it is not unpacked")
                target.write(chunk)


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(entry.filename)
    drive = ":" in entry.filename or "\\" in entry.filename
    if path.is_absolute() or ".." in path.parts or drive or not path.parts:
        raise DatasetError(f"{name} holds the path {entry.filename!r}, which leads outside; it is not unpacked")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"{name} holds the link or device {entry.filename!r}; it is not unpacked")
    if entry.flag_bits & 1:
        raise DatasetError(f"{name} is encrypted; it is not unpacked")
