"""Training data that ssm-simulators wrote: pickles, read without running anything, and turned into shards.

A pickle is a program. This reader follows it with tokens instead of objects: no name in it is imported, nothing in
it is called. What comes out are numbers, texts, plain containers and numpy arrays, which are put together from their
bytes here; all else (the functions and transforms inside a ``model_config``) becomes a `Placeholder`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from lanline.dataset.shards import read_origin, write_shard
from lanline.errors import UserError
from lanline.files import sha256_file

SUFFIXES = (".pickle", ".pkl")
_MODULES = ("numpy.core", "numpy._core")  # as numpy 1 and numpy 2 write it
_BUILTINS = ("builtins", "__builtin__")  # the second one up to protocol 2


class Placeholder:
    """Stands for an object of a pickle that is neither data nor a plain container. It takes whatever is done to it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<not loaded: {self.name}>"

    def ignore(self, *_: Any) -> None:
        """What would fill the object: items, elements, attributes."""

    append = extend = add = __setitem__ = ignore


class _Unfinished:
    """A numpy array or dtype before its BUILD, which brings its state."""

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self.finish = finish


class _Reader(pickle._Unpickler):
    """Python's own unpickler (the one written in Python) with every opcode that could run something replaced."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Placeholder:
        return Placeholder(f"{module}.{name}")

    def _instantiate(self, klass: Any, args: Any) -> None:  # opcodes INST and OBJ
        self.append(Placeholder(_name(klass)))

    def get_extension(self, code: int) -> NoReturn:
        raise pickle.UnpicklingError(f"extension code {code}")

    def _reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        build = _BUILDERS.get(_name(function))
        self.append(build(*args) if build else Placeholder(_name(function)))

    def _new_object(self) -> None:
        self.stack.pop()  # arguments
        self.append(Placeholder(_name(self.stack.pop())))

    def _new_object_with_keywords(self) -> None:
        self.stack.pop()
        self._new_object()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            return
        if not isinstance(target, _Unfinished):
            raise pickle.UnpicklingError(f"attributes for a {type(target).__name__}")
        # The memo has the unfinished object; later references must find the finished one.
        self.stack[-1] = built = target.finish(state)
        for key, value in self.memo.items():
            if value is target:
                self.memo[key] = built

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _new_object
    dispatch[pickle.NEWOBJ_EX[0]] = _new_object_with_keywords
    dispatch[pickle.BUILD[0]] = _build


def _name(token: Any) -> str:
    if not isinstance(token, Placeholder):
        raise pickle.UnpicklingError(f"a call of a {type(token).__name__}")
    return token.name


def _dtype(name: Any, order: Any) -> np.dtype:
    if not isinstance(name, str) or order not in ("<", ">", "|", "="):
        raise pickle.UnpicklingError(f"dtype {name!r}")
    return np.dtype(name).newbyteorder(order)


def _array(shape: Any, dtype: Any, fortran: Any, raw: Any) -> np.ndarray | Placeholder:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(raw, bytes | bytearray):
        return Placeholder("array of objects")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Unfinished:
    return _Unfinished(lambda state: _array(*state[1:]))


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray | Placeholder:
    return _array(shape, dtype, order == "F", raw)


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    value = _array((), dtype, False, raw)
    return value if isinstance(value, Placeholder) else value[()]


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # the one that pickle itself writes, in protocol 2
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": lambda name, *_: _Unfinished(lambda state: _dtype(name, state[1])),
    "collections.OrderedDict": dict,
    "_codecs.encode": _encoded,
    **{f"{module}.set": set for module in _BUILTINS},
    **{f"{module}.frozenset": frozenset for module in _BUILTINS},
    **{f"{module}.bytes": lambda: b"" for module in _BUILTINS},  # how protocol 2 writes empty ones
    **{f"{module}.multiarray._reconstruct": _reconstruct for module in _MODULES},
    **{f"{module}.multiarray.scalar": _scalar for module in _MODULES},
    **{f"{module}.numeric._frombuffer": _from_buffer for module in _MODULES},
}


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle.

    Raises:
        UserError: the file cannot be read, is no pickle, or holds no dictionary.
    """
    try:
        with Path(path).open("rb") as handle:
            value = _Reader(handle).load()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except Exception as error:  # a broken or hostile file may fail anywhere; it is named, and nothing was run
        raise UserError(f"{path} cannot be read as a pickle of arrays: {error or type(error).__name__}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a pickled dictionary of arrays, found {type(value).__name__}")
    return value


def model_of(path: Path) -> str | None:
    """Name of the model that a file of training data is of, or None if it does not say.

    Raises:
        UserError: the file cannot be read.
    """
    if Path(path).suffix not in SUFFIXES:
        return read_origin(path)["model"]
    return _model_in(read_pickle(path))


def _model_in(content: dict[str, Any]) -> str | None:
    for section, key in (("model_config", "name"), ("generator_config", "model")):
        found = content.get(section)
        if isinstance(found, dict) and isinstance(found.get(key), str):
            return found[key]
    return None


def as_shard(path: Path, folder: Path, network_type: str, params: tuple[str, ...]) -> Path:
    """A file of training data in lanline's format: the file itself, or for a pickle a shard with its rows.

    Args:
        path: a shard, or a pickle of ssm-simulators.
        folder: where shards made from pickles go; one that is there already is used again.
        network_type: which arrays of the pickle are wanted, e.g. lan.
        params: names of the parameters that the columns are expected to hold, in this order.

    Returns:
        Path of the shard.

    Raises:
        UserError: the file cannot be read, lacks the arrays, has other parameters, or holds NaN or infinity or what
            are no probabilities.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        return path
    target = Path(folder) / f"{path.name}.safetensors"
    digest = sha256_file(path)
    if target.exists() and read_origin(target)["sha256"] == digest:
        return target
    content = read_pickle(path)
    _check_params(path, content, params)
    # A choice is predicted given that there is one (docs/network-types.md); other files of that name count omissions.
    given_response = network_type == "cpn" and ("deadline" in params or "cpn_no_omission_labels" in content)
    source = "cpn_no_omission" if given_response else network_type
    data, labels = (_numbers(path, content, f"{source}_{part}") for part in ("data", "labels"))
    labels = labels.reshape(len(labels), -1)
    if data.ndim != 2 or len(labels) != len(data):
        raise UserError(f"{path}: {source}_data and _labels have shapes {data.shape} and {labels.shape}")
    if network_type != "lan":
        labels = _probabilities(path, f"{source}_labels", labels)
    if labels.shape[1] == 1:  # as in lanline's own shards; of several choices there is a column each
        labels = np.ascontiguousarray(labels[:, 0])
    arrays = {f"{network_type}_data": data, f"{network_type}_labels": labels}
    write_shard(target, arrays, {"model": _model_in(content), "params": params, "from": path.name, "sha256": digest})
    return target


def _check_params(path: Path, content: dict[str, Any], params: tuple[str, ...]) -> None:
    model_config = content.get("model_config")
    found = model_config.get("params") if isinstance(model_config, dict) else None
    if isinstance(found, list) and tuple(found) != params:
        raise UserError(f"{path} has the parameters {', '.join(map(str, found))}; expected {', '.join(params)}")


def _probabilities(path: Path, name: str, labels: np.ndarray) -> np.ndarray:
    """Labels (n, K), those of several choices divided by their sum: they lack the omissions' share."""
    sums = labels.sum(axis=1, keepdims=True)
    wrong = ((labels < 0) | (labels > 1)).any(axis=1)
    if labels.shape[1] > 1:
        wrong |= sums[:, 0] <= 0
        labels = labels / np.where(sums > 0, sums, 1)
    if bad := int(wrong.sum()):
        raise UserError(f"{path}: {bad:,} rows of {name} are no probabilities")
    return labels


def _numbers(path: Path, content: dict[str, Any], name: str) -> np.ndarray:
    array = content.get(name)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim == 0:
        arrays = [str(key) for key, value in content.items() if isinstance(value, np.ndarray)]
        raise UserError(f"{path} has no array {name}; it has {', '.join(sorted(arrays)) or 'none'}")
    array = np.ascontiguousarray(array, np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(array))):
        raise UserError(f"{path}: {bad:,} values of {name} are NaN or infinite")
    return array
