"""One model, several threads: a run holds the model, and a steered model belongs to one thread.

Runs hook the model, so two at once would see each other's hooks: they wait for one another. The
block of a ``direction.apply`` may last too long to wait for, so others are refused meanwhile.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_making = threading.Lock()
_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
# The threads whose blocks are steering a model, innermost last.
_steering: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()


@contextmanager
def using(model: TransformerBridge, *, steered: bool = False) -> Iterator[None]:
    """Hold a model for one run; other threads' runs wait until it is over.

    Args:
        model: The language model.
        steered: Whether the run may be one that this thread's own ``apply`` steers.

    Raises:
        InputError: the model is being steered by ``apply``.
    """
    with _lock_of(model):
        _refuse_others(model)
        if not steered and _steering.get(model):
            raise InputError(
                "the model is being steered by `apply` already: leave that block, and give its "
                "directions as a branch"
            )
        yield


@contextmanager
def steering(model: TransformerBridge) -> Iterator[None]:
    """Say that this thread steers a model, until the block is left.

    Raises:
        InputError: another thread does.
    """
    with _lock_of(model):
        _refuse_others(model)
        _steering.setdefault(model, []).append(threading.get_ident())
    try:
        yield
    finally:
        with _lock_of(model):
            _steering[model].pop()


def _lock_of(model: TransformerBridge) -> threading.RLock:
    with _making:
        return _locks.setdefault(model, threading.RLock())


def _refuse_others(model: TransformerBridge) -> None:
    threads = _steering.get(model)
    if threads and threads[-1] != threading.get_ident():
        raise InputError(
            "the model is in use: another thread is steering it by `apply`; wait until that block "
            "is left, or load the model once more"
        )
