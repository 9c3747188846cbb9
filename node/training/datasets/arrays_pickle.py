"""Reading a pickle that may hold nothing but NumPy arrays, from a file that we did not write."""

from __future__ import annotations

import pickle
from typing import Any, Protocol

import numpy as np

from btard.node.errors import DataError

# What NumPy 1 and 2 write for an array. `_reconstruct` only allocates; the bytes follow through `__setstate__`.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysUnpickler(pickle.Unpickler):
    """Resolves the four names an array needs; every other global would be code of the file's choosing."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


class Readable(Protocol):
    """A binary file open for reading."""

    def read(self, size: int = ..., /) -> bytes:
        """At most `size` bytes."""

    def readline(self) -> bytes:
        """Up to and including the next newline."""


def load_arrays(file: Readable) -> Any:
    """Tuples, lists and numeric arrays from a pickle; strings of Python 2 are read as Latin-1 (raw array bytes).

    Raises:
        DataError: it is not a pickle, or asks for anything but NumPy arrays.
    """
    try:
        return _ArraysUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise DataError(f"not a pickle of NumPy arrays: {error}") from error
