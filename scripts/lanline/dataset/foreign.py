"""Training data that ssm-simulators wrote: pickles, read without running anything, and turned into shards.

A pickle is a program. This reader follows it with tokens instead of objects: no name in it is imported, nothing in
it is called. What comes out are numbers, texts, plain containers and numpy arrays, which are put together from their
bytes here; all else (the functions and transforms inside a ``model_config``) becomes a `Placeholder`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn

import numpy as np

from lanline.dataset.shards import read_origin, write_shard
from lanline.errors import UserError, reason
from lanline.files import sha256_file

SUFFIXES = (".pickle", ".pkl")
CONVERTER = 2  # of as_shard: what another one made is not used again
CONTRADICTION = 0.02  # in probability, and share of rows
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


class _Memo(dict[int, Any]):
    """The memo, which knows where unfinished objects lie: to look for them at each BUILD would take quadratic time."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, list[int]] = {}

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        if isinstance(value, _Unfinished):
            self._places.setdefault(id(value), []).append(key)

    def finish(self, unfinished: _Unfinished, built: Any) -> None:
        for key in self._places.pop(id(unfinished), []):
            if self[key] is unfinished:
                super().__setitem__(key, built)


class _Bounded:
    """A file of which nothing is asked that it does not have: Python makes room for all that is asked for."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._left = os.fstat(handle.fileno()).st_size

    def read(self, n: int = -1) -> bytes:
        if n > self._left:
            raise EOFError
        got = self._handle.read(n)
        self._left -= len(got)
        return got

    def readline(self) -> bytes:
        got = self._handle.readline()
        self._left -= len(got)
        return got


_KEYS = (str, bytes, int, float, type(None), Placeholder, np.generic)


def _check_keys(keys: Iterable[Any]) -> None:
    """A few bytes make nested tuples that take for ever to hash."""
    for key in keys:
        if not isinstance(key, _KEYS) and not (isinstance(key, tuple) and all(isinstance(k, _KEYS) for k in key)):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")


def _plain_set(make: type) -> Callable[..., Any]:
    def build(items: Any = ()) -> Any:
        _check_keys(items)
        return make(items)

    return build


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    pairs = list(pairs.items() if isinstance(pairs, dict) else pairs)
    _check_keys(pair[0] for pair in pairs)
    return dict(pairs)


_PYTHONS: Any = pickle._Unpickler


class _Reader(_PYTHONS):  # type: ignore[misc]  # its parts have no types
    """Python's own unpickler (the one written in Python) with every opcode that could run something replaced."""

    dispatch: ClassVar = dict(_PYTHONS.dispatch)
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    stack: list[Any]

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__(_Bounded(handle))
        self.memo = _Memo()

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
        self.memo.finish(target, built)

    def _byte_array(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _set_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        _PYTHONS.load_setitem(self)

    def _set_items(self) -> None:
        _check_keys(self.stack[::2])
        _PYTHONS.load_setitems(self)

    def _dict(self) -> None:
        _check_keys(self.stack[::2])
        _PYTHONS.load_dict(self)

    def _add_items(self) -> None:
        _check_keys(self.stack)
        _PYTHONS.load_additems(self)

    def _frozen_set(self) -> None:
        _check_keys(self.stack)
        _PYTHONS.load_frozenset(self)

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _new_object
    dispatch[pickle.NEWOBJ_EX[0]] = _new_object_with_keywords
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.BYTEARRAY8[0]] = _byte_array
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _dict
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _frozen_set


def _name(token: Any) -> str:
    if not isinstance(token, Placeholder):
        raise pickle.UnpicklingError(f"a call of a {type(token).__name__}")
    return token.name


def _dtype(name: Any, order: Any) -> np.dtype:
    if not isinstance(name, str) or len(name) > 16 or order not in ("<", ">", "|", "="):
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
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encoded,
    **{f"{module}.set": _plain_set(set) for module in _BUILTINS},
    **{f"{module}.frozenset": _plain_set(frozenset) for module in _BUILTINS},
    **{f"{module}.bytes": lambda: b"" for module in _BUILTINS},  # how protocol 2 writes empty ones
    **{f"{module}.multiarray._reconstruct": _reconstruct for module in _MODULES},
    **{f"{module}.multiarray.scalar": _scalar for module in _MODULES},
    **{f"{module}.numeric._frombuffer": _from_buffer for module in _MODULES},
}


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle.

    Raises:
        UserError: the file cannot be read, is not a pickle, or does not hold a dictionary.
    """
    try:
        with Path(path).open("rb") as handle:
            value = _Reader(handle).load()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except EOFError:
        raise UserError(f"{path} cannot be read as a pickle of arrays: it ends too early (truncated?)") from None
    except Exception as error:  # a broken or hostile file may fail anywhere; it is named, and nothing was run
        raise UserError(f"{path} cannot be read as a pickle of arrays: {reason(error)}") from None
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


def as_shard(
    path: Path, folder: Path, network_type: str, params: tuple[str, ...], label_floor: float | None = None
) -> Path:
    """A file of training data in lanline's format: the file itself, or for a pickle a shard with its rows.

    Args:
        path: a shard, or a pickle of ssm-simulators.
        folder: where shards made from pickles go; one that already exists is used again.
        network_type: which arrays of the pickle are wanted, e.g. lan.
        params: names of the parameters that the columns are expected to hold, in this order.
        label_floor: -inf among the labels of a lan is raised to this, as LANfactory does, instead of refused.

    Returns:
        Path of the shard.

    Raises:
        UserError: the file cannot be read, lacks the arrays or their rows, has other parameters, or holds NaN or
            infinity, or values that are not probabilities.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        return path
    target = Path(folder) / f"{path.name}.safetensors"
    made_by = {"sha256": sha256_file(path), "converter": CONVERTER, "label_floor": label_floor}
    if target.exists() and made_by.items() <= read_origin(target).items():
        return target
    content = read_pickle(path)
    _check_params(path, content, params)
    data_name, labels_name = _array_names(path, content, network_type, params)
    data = _numbers(path, content, data_name)
    labels = _numbers(path, content, labels_name, label_floor if network_type == "lan" else None)
    if len(labels) == 0:
        raise UserError(f"{path}: {labels_name} has no rows")
    labels = labels.reshape(len(labels), -1)
    if data.ndim != 2 or len(labels) != len(data):
        raise UserError(f"{path}: {data_name} and {labels_name} have shapes {data.shape} and {labels.shape}")
    if network_type != "lan":
        labels = _probabilities(path, labels_name, labels)
    if labels.shape[1] == 1:  # as in lanline's own shards; of several choices there is a column each
        labels = np.ascontiguousarray(labels[:, 0])
    origin = {
        "model": _model_in(content),
        "params": params,
        "from": path.name,
        **made_by,
        "settings": _settings(content),
        "contradictions": _contradictions(content, network_type, params),
    }
    write_shard(target, {f"{network_type}_data": data, f"{network_type}_labels": labels}, origin)
    return target


def _check_params(path: Path, content: dict[str, Any], params: tuple[str, ...]) -> None:
    model_config = content.get("model_config")
    found = model_config.get("params") if isinstance(model_config, dict) else None
    if not isinstance(found, list | tuple | np.ndarray) or np.ndim(found) != 1:
        return
    names = tuple(str(name) if isinstance(name, str) else "?" for name in found)
    if names != params:
        raise UserError(f"{path} has the parameters {', '.join(names)}; expected {', '.join(params)}")


def _array_names(path: Path, content: dict[str, Any], network_type: str, params: tuple[str, ...]) -> tuple[str, str]:
    """Where a pickle keeps what a network of that type is trained on."""
    if network_type == "lan" and "lan_data" not in content and {"data", "labels"} <= content.keys():
        return "data", "labels"  # ssm-simulators before it had other networks than lan
    # A choice is predicted given that there is one (docs/network-types.md); other files of that name count omissions.
    given_response = network_type == "cpn" and ("deadline" in params or "cpn_no_omission_labels" in content)
    source = "cpn_no_omission" if given_response else network_type
    return f"{source}_data", f"{source}_labels"


def _settings(content: dict[str, Any]) -> dict[str, float]:
    """The settings of a ``generator_config`` that labels depend on, nested as today or flat as in older versions."""
    config = content.get("generator_config")
    if not isinstance(config, dict):
        return {}
    flat = config | {
        key: value
        for section in ("simulator", "training")
        if isinstance(config.get(section), dict)
        for key, value in config[section].items()
    }
    found = {}
    names = {"delta_t": "delta_t", "max_t": "max_t", "n_samples": "n_samples", "negative_rt_log_likelihood": "floor"}
    for name, ours in names.items():
        value: Any = flat.get(name)
        positive = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
        if positive if name != "negative_rt_log_likelihood" else isinstance(value, float) and -1e3 <= value < 0:
            found[ours] = int(value) if ours == "n_samples" else float(value)
    return found


def _contradictions(content: dict[str, Any], network_type: str, params: tuple[str, ...]) -> list[str]:
    """Where the probabilities of a file contradict each other.

    With a deadline ssm-simulators up to 0.15 counts omissions in its gonogo labels alone: those are right, the others
    are compared with the engine.
    """
    if network_type == "lan":
        return []
    gonogo, counted, given, omitted = (
        _column(content, f"{name}_labels") for name in ("gonogo", "cpn", "cpn_no_omission", "opn")
    )
    if gonogo is None or ("deadline" in params and omitted is not None and not omitted.any()):
        return []
    # Of all responses, or of those that were not omitted.
    candidates = [counted, *(_times(upper, omitted) for upper in (given, counted))]
    fitting = [upper for upper in candidates if upper is not None and len(upper) == len(gonogo)]
    off = [np.abs(1 - upper - gonogo) > CONTRADICTION for upper in fitting]
    if not off or min(rows.mean() for rows in off) <= CONTRADICTION:
        return []
    bad = min(int(rows.sum()) for rows in off)
    return [f"gonogo_labels and the other probabilities contradict each other in {bad:,} of {len(gonogo):,} rows"]


def _times(upper: np.ndarray | None, omitted: np.ndarray | None) -> np.ndarray | None:
    if upper is None or omitted is None or len(upper) != len(omitted):
        return None
    return upper * (1 - omitted)


def _column(content: dict[str, Any], name: str) -> np.ndarray | None:
    """(n,) probabilities, of several choices those of the last one."""
    array = content.get(name)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim == 0 or not array.size:
        return None
    return array.reshape(len(array), -1)[:, -1].astype(float)


def _probabilities(path: Path, name: str, labels: np.ndarray) -> np.ndarray:
    """Labels (n, K), those of several choices divided by their sum: they lack the omissions' share."""
    sums = labels.sum(axis=1, keepdims=True)
    wrong = ((labels < 0) | (labels > 1)).any(axis=1)
    if labels.shape[1] > 1:
        wrong |= sums[:, 0] <= 0
        labels = labels / np.where(sums > 0, sums, 1)
    if bad := int(wrong.sum()):
        raise UserError(f"{path}: {bad:,} rows of {name} are not probabilities")
    return labels


def _numbers(path: Path, content: dict[str, Any], name: str, lowest: float | None = None) -> np.ndarray:
    """An array as float32; -inf is raised to ``lowest``."""
    array = content.get(name)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim == 0:
        arrays = [str(key) for key, value in content.items() if isinstance(value, np.ndarray)]
        raise UserError(f"{path} has no array {name}; it has {', '.join(sorted(arrays)) or 'none'}")
    array = np.ascontiguousarray(array, np.float32)
    if lowest is not None:
        array = np.where(np.isneginf(array), np.float32(lowest), array)
    if bad := int(np.count_nonzero(~np.isfinite(array))):
        hint = (
            "; set LABELS_LOWER_BOUND (or training.label_floor) to raise -inf to it" if np.isneginf(array).any() else ""
        )
        raise UserError(f"{path}: {bad:,} values of {name} are NaN or infinite{hint}")
    return array
