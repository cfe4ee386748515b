"""llama.cpp itself, as xllamacpp carries it: its model, its reader of control vectors, its text.

xllamacpp's own classes know no control vectors, but the library inside exports llama.cpp's
functions, so they are called as they are. Structs are passed on as llama.cpp fills them and never
looked into: one that is larger than the callee's, as a last argument, is read as the callee's.
"""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.ctypeslib import as_array


class _Filled(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 2048)]


class _Batch(ctypes.Structure):
    """``llama_batch``."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("token", "embd", "pos", "n_seq", "seq", "logits")),
    ]


class _Vector(ctypes.Structure):
    """``std::vector`` of the GNU library."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("begin", "end", "room")]


class _LoadInfo(ctypes.Structure):
    """``common_control_vector_load_info``: a strength, and a ``std::string``.

    The wheel is built with the older string of the GNU library, a pointer to its characters.
    """

    _fields_ = [("strength", ctypes.c_float), ("text", ctypes.c_char_p)]


class _ControlVector(ctypes.Structure):
    """``common_control_vector_data``."""

    _fields_ = [("n_embd", ctypes.c_int), ("data", _Vector)]


_LOAD = "_Z26common_control_vector_loadRKSt6vectorI31common_control_vector_load_infoSaIS0_EE"
_SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (_Filled, []),
    "llama_context_default_params": (_Filled, []),
    "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, _Filled]),
    "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, _Filled]),
    "llama_set_n_threads": (None, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]),
    "llama_model_n_embd": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_model_n_layer": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_batch_get_one": (_Batch, [ctypes.c_void_p, ctypes.c_int32]),
    "llama_decode": (ctypes.c_int32, [ctypes.c_void_p, _Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
    "llama_get_memory": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_memory_clear": (None, [ctypes.c_void_p, ctypes.c_bool]),
    "llama_set_adapter_cvec": (
        ctypes.c_int32,
        [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int32] * 3],
    ),
    "llama_log_set": (None, [ctypes.c_void_p, ctypes.c_void_p]),
    _LOAD: (_ControlVector, [ctypes.POINTER(_Vector)]),
}
_SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
    lambda _level, _text, _data: None
)


def float32_copy(gguf: Path, out: Path) -> Path:
    """The same model with all weights as float32, so that both sides compute in one precision."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    reader = GGUFReader(gguf)
    writer = GGUFWriter(out, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind, *inner = field.types
        of = inner[0] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, of)
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name,
            dequantize(tensor.data, tensor.tensor_type).astype(np.float32),
            raw_dtype=GGMLQuantizationType.F32,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


class LlamaCpp:
    """A model in llama.cpp, steered by one control vector at a time.

    Args:
        gguf: The model's file.
        n_vocab: Size of its vocabulary.

    Raises:
        ImportError: xllamacpp is not installed.
    """

    def __init__(self, gguf: Path, n_vocab: int) -> None:
        folder = find_spec("xllamacpp")
        if folder is None or folder.origin is None:
            raise ImportError("xllamacpp is not installed")
        self._lib = ctypes.CDLL(str(Path(folder.origin).parent / "xllamacpp.abi3.so"))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self.version = f"llama.cpp in xllamacpp {version('xllamacpp')}"
        self._n_vocab = n_vocab
        self._lib.llama_log_set(_SILENT, None)
        self._lib.llama_backend_init()
        parameters = self._lib.llama_model_default_params()
        self._model = self._lib.llama_model_load_from_file(str(gguf).encode(), parameters)
        parameters = self._lib.llama_context_default_params()
        self._context = self._lib.llama_init_from_model(self._model, parameters)
        assert self._model and self._context
        # Its threads wait busily for each other, which on a shared machine takes longer than one.
        self._lib.llama_set_n_threads(self._context, 1, 1)

    def steer(self, path: Path | None) -> None:
        """Let a control vector act, as ``--control-vector`` does; none with None."""
        lib, n_layers = self._lib, self._lib.llama_model_n_layer(self._model)
        if path is None:
            assert lib.llama_set_adapter_cvec(self._context, None, 0, 0, 0, 0) == 0
            return
        info = _LoadInfo(1.0, str(path).encode())
        begin = ctypes.addressof(info)
        end = begin + ctypes.sizeof(info)
        read = getattr(lib, _LOAD)(ctypes.byref(_Vector(begin, end, end)))
        assert read.n_embd == lib.llama_model_n_embd(self._model), "llama.cpp rejects the file"
        n = (read.data.end - read.data.begin) // 4
        done = lib.llama_set_adapter_cvec(
            self._context, read.data.begin, n, read.n_embd, 1, n_layers
        )
        assert done == 0

    def log_probs(self, ids: list[int]) -> torch.Tensor:
        """Log-probs of the token behind these."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        return self._read(ids)

    def write(self, ids: list[int], n: int) -> list[int]:
        """The n likeliest tokens, one after the other, behind a prompt."""
        new = [int(self.log_probs(ids).argmax())]
        while len(new) < n:
            new.append(int(self._read(new[-1:]).argmax()))
        return new

    def _read(self, ids: list[int]) -> torch.Tensor:
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        batch = self._lib.llama_batch_get_one(ctypes.addressof(tokens), len(ids))
        assert self._lib.llama_decode(self._context, batch) == 0
        logits = as_array(self._lib.llama_get_logits_ith(self._context, -1), (self._n_vocab,))
        return torch.from_numpy(np.array(logits)).double().log_softmax(-1)
