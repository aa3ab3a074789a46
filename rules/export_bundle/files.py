"""The files of a bundle wherever they are: in memory, in a folder or in a ZIP; read piece by piece."""

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PIECE = 1 << 20
MAX_BYTES = 1 << 33


class ZipRefused(Exception):
    """Not byte for byte a ZIP as `zip_write` writes it."""


@dataclass(frozen=True)
class Files:
    """Files by name. `open` gives a file at its beginning; the caller closes it."""

    names: frozenset[str]
    open: Callable[[str], IO[bytes]]

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> "Files":
        return cls(frozenset(contents), lambda name: io.BytesIO(contents[name]))

    @classmethod
    def folder(cls, path: Path) -> "Files":
        """The regular files of a folder; nothing below it."""
        names = frozenset(one.name for one in path.iterdir() if one.is_file() and not one.is_symlink())
        return cls(names, lambda name: (path / name).open("rb"))

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def lines(self, name: str) -> Iterator[bytes]:
        """Each line without its end. Raises ValueError when the last one has none: the file is cut off."""
        with self.open(name) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    raise ValueError(f"{name} is cut off")
                yield line[:-1]

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return file.seek(0, io.SEEK_END)

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self.open(name) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()


def zip_write(files: Files, to: IO[bytes]) -> None:
    """A ZIP with stored files in the order of their names and one fixed time: equal files, equal bytes."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files.names):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.file_size = files.size(name)
            with archive.open(entry, "w") as target, files.open(name) as source:
                shutil.copyfileobj(source, target, _PIECE)


def zip_read(source: IO[bytes]) -> Files:
    """The files of a ZIP that is byte for byte the one we would write. Raises ZipRefused."""
    try:
        size = source.seek(0, io.SEEK_END)
        archive = zipfile.ZipFile(source)
        entries = archive.infolist()
        stored = all(one.compress_type == zipfile.ZIP_STORED and one.file_size <= size for one in entries)
        if not stored or size > MAX_BYTES or len({one.filename for one in entries}) != len(entries):
            raise ZipRefused("the ZIP holds compressed, doubled or too large files")
        files = Files(frozenset(one.filename for one in entries), archive.open)
        with tempfile.SpooledTemporaryFile(max_size=16 * _PIECE) as again:
            zip_write(files, again)
            if not _are_same(again, source):
                raise ZipRefused("the ZIP is not written the way a bundle is")
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise ZipRefused(f"this is no ZIP of ours ({type(error).__name__})") from error
    return files


def _are_same(one: IO[bytes], other: IO[bytes]) -> bool:
    one.seek(0)
    other.seek(0)
    while piece := one.read(_PIECE):
        if piece != other.read(_PIECE):
            return False
    return not other.read(1)
