"""Recorded files → wire messages, as a broker would have delivered them.

| file | one message is |
|---|---|
| `.json` | the whole file |
| `.csv`, `.tsv`, `.parquet`, or any other file that is no JSON, with a mapping | a native event of a row |
| anything else (`.jsonl`, `.ndjson`, …), and `.tsv` of Snowplow's rows | a line, byte for byte; a blank line too |

A `.gz` or `.zst` behind any of them (Parquet: `.gz`) is transparent. Nothing is dropped: what is missing in a row or
line is left for the door to refuse, so that the numbers of a backtest add up.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from streams.errors import ConfigError, TrustwatchError, UsageError
from streams.mapping import Mapping, Row, load_mapping

__all__ = ["MAX_MESSAGE_BYTES", "RecordedFile", "load_mapping", "read_messages"]

MAX_MESSAGE_BYTES: Final = 64_000_000
"""A longer line is cut here, which leaves it far too large for the door."""
_BUFFER_BYTES: Final = 1 << 20
_JSON_SUFFIXES: Final = frozenset({".json", ".jsonl", ".ndjson"})
_TABLE_SUFFIXES: Final = frozenset({".csv", ".tsv", ".parquet"})
_LOOKED_AT_BYTES: Final = 1 << 16
_TABS_OF_A_ROW: Final = 128
"""Snowplow's rows have 128 to 130: no table that needs a mapping is so wide."""
_PACKED: Final = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}


class RecordedFile:
    """One recorded file.

    Attributes:
        path: where it is.
        size_bytes: its size on disk: the total of a progress bar.
        wire_format: format of the messages: native where a mapping makes them, otherwise what the caller said.
    """

    def __init__(
        self,
        path: Path,
        fmt: str | None = None,
        mapping: Mapping | None = None,
        on_bytes: Callable[[int], object] | None = None,
    ) -> None:
        """Look at the file; of none but a `.tsv` without mapping anything is read yet.

        Args:
            path: the file.
            fmt: wire format of its messages, or None for told apart by shape.
            mapping: how rows become events; ignored for JSON files, so that one command can take both.
            on_bytes: told after each read how many bytes of the file it took.

        Raises:
            UsageError: there is no such file.
            ConfigError: a table without mapping.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        self.path = path
        self.size_bytes = path.stat().st_size
        self._on_bytes = on_bytes
        self._packed = _PACKED.get(path.suffix.lower())
        self._suffix = Path(path.stem).suffix.lower() if self._packed else path.suffix.lower()
        if self._suffix in _TABLE_SUFFIXES and mapping is None and not self._holds_rows(fmt):
            raise ConfigError(f"{path}: a table needs a mapping of its columns: --map MAP.yaml")
        self._mapping = None if self._suffix in _JSON_SUFFIXES else mapping
        self.wire_format = fmt if self._mapping is None else "native"

    def _holds_rows(self, fmt: str | None) -> bool:
        """Whether a table holds rows of Snowplow's, which are messages as they are."""
        if self._suffix != ".tsv" or fmt not in (None, "snowplow"):
            return False
        if fmt is not None:
            return True
        try:
            with self._open(counted=False) as stream:
                lines = stream.read(_LOOKED_AT_BYTES).splitlines()
        except (OSError, EOFError, zlib.error):
            return False
        return any(line.count(b"\t") >= _TABS_OF_A_ROW for line in lines)

    def __iter__(self) -> Iterator[bytes]:
        """All messages in file order; can be repeated.

        Raises:
            ConfigError: the mapping names a column that the file lacks, or Parquet support is not installed.
            TrustwatchError: the file cannot be read to its end.
        """
        try:
            if self._mapping is not None:
                yield from self._mapped(self._mapping)
            elif self._suffix == ".json":
                with self._open() as stream:
                    yield stream.read(MAX_MESSAGE_BYTES)
            else:
                with self._open() as stream:
                    yield from _lines(stream)
        except (OSError, EOFError, zlib.error) as error:
            raise TrustwatchError(f"{self.path}: cannot be read to its end: {error}") from error

    def _open(self, *, counted: bool = True) -> IO[bytes]:
        file = _Counted(self.path, self._on_bytes if counted else None)
        buffered: IO[bytes] = io.BufferedReader(file, _BUFFER_BYTES)
        if self._packed is None:
            return buffered
        unpacked: Any = _Gunzip(buffered) if self._packed == "gzip" else _unzstd(buffered, self.path)
        return io.BufferedReader(unpacked, _BUFFER_BYTES)

    def _mapped(self, mapping: Mapping) -> Iterator[bytes]:
        with self._open() as stream:
            parquet = self._suffix == ".parquet"
            columns, rows = _parquet(stream, self.path) if parquet else _csv(stream, self._delimiter(mapping))
            to_events = mapping.compiled(columns, self.path.name)
            for number, row in enumerate(rows, 1):
                for event in to_events(row, number):
                    yield msgspec.json.encode(event)

    def _delimiter(self, mapping: Mapping) -> str:
        return mapping.delimiter or ("\t" if self._suffix == ".tsv" else ",")


def read_messages(path: Path, fmt: str | None = None, mapping: Mapping | None = None) -> Iterator[bytes]:
    """The messages of one file; see `RecordedFile`."""
    return iter(RecordedFile(path, fmt, mapping))


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read: position in the compressed file is what a progress bar can know."""

    def __init__(self, path: Path, on_bytes: Callable[[int], object] | None) -> None:
        self._file = path.open("rb", buffering=0)
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        if count and self._on_bytes:
            self._on_bytes(count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Gunzip(gzip.GzipFile):
    """Closes the file that it was given, too."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(fileobj=source)
        self._source = source

    def close(self) -> None:
        super().close()
        self._source.close()


def _unzstd(source: IO[bytes], path: Path) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415  (an optional dependency)
    except ImportError as error:
        raise ConfigError(f"{path}: Zstandard needs pyarrow: pip install 'trustwatch[parquet]'") from error
    return pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(MAX_MESSAGE_BYTES):
        whole = line.endswith(b"\n")
        yield line[:-1] if whole else line
        while not whole:  # the rest of a line that was cut, or the end of the file
            rest = stream.readline(_BUFFER_BYTES)
            whole = not rest or rest.endswith(b"\n")


def _csv(stream: IO[bytes], delimiter: str) -> tuple[list[str], Iterator[Row | None]]:
    # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    reader = csv.reader(text, delimiter=delimiter)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise TrustwatchError(f"the header is no CSV: {error}") from error
    return header, _csv_rows(reader, header)


def _csv_rows(reader: Any, header: list[str]) -> Iterator[Row | None]:
    """Rows by column; None for one that cannot be trusted: unreadable, or with other cells than columns."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None  # becomes an empty event, which the door refuses and counts
            continue
        yield dict(zip(header, cells, strict=False)) if len(cells) == len(header) else None


def _parquet(stream: IO[bytes], path: Path) -> tuple[list[str], Iterator[Row | None]]:
    try:
        import pyarrow.parquet as pq  # noqa: PLC0415  (an optional dependency)
        from pyarrow import ArrowException  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"{path}: Parquet needs pyarrow: pip install 'trustwatch[parquet]'") from error
    try:
        file = pq.ParquetFile(stream)
    except ArrowException as error:
        raise TrustwatchError(f"{path}: no readable Parquet file: {error}") from error

    schema = _to_microseconds(file.schema_arrow)

    def rows() -> Iterator[Row | None]:
        try:
            for batch in file.iter_batches():
                yield from _rows_of(batch.cast(schema, safe=False))
        except ArrowException as error:
            raise TrustwatchError(f"{path}: cannot be read to its end: {error}") from error

    return list(_columns(file.schema_arrow)), rows()


def _columns(fields: Any, above: str = "") -> Iterator[str]:
    """Names of columns, and of the parts of nested ones as `user.id`."""
    for field in fields:
        name = f"{above}{field.name}"
        yield name
        if hasattr(field.type, "fields"):
            yield from _columns(field.type.fields, f"{name}.")


def _to_microseconds(schema: Any) -> Any:
    """The schema with nanoseconds cut to microseconds, which is what Python's times hold."""
    import pyarrow as pa  # noqa: PLC0415  (an optional dependency)

    def cut(kind: Any) -> Any:
        if pa.types.is_struct(kind):
            return pa.struct([field.with_type(cut(field.type)) for field in kind.fields])
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            made = pa.list_ if pa.types.is_list(kind) else pa.large_list
            return made(kind.value_field.with_type(cut(kind.value_type)))
        if getattr(kind, "unit", None) != "ns":
            return kind
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us", kind.tz)
        return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")

    return pa.schema([field.with_type(cut(field.type)) for field in schema])


def _rows_of(batch: Any) -> Iterator[Row | None]:
    """Rows by column; None for one with a value that Python has no type for, such as a time in the year 200,000."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for at in range(batch.num_rows):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except (ValueError, OverflowError):
                yield None
