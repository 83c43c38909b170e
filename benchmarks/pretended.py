"""A GPU that is not there: it is no quicker, but it counts, and refuses what a GPU refuses.

Inside of `pretended_gpu` PyTorch finds one CUDA GPU.  Its tensors are `PretendedTensor`s, which say
that they are on ``cuda:0`` and hold one on the CPU.  An operation on tensors of both devices
raises, as it does on a GPU; operations, which are about kernel launches, are counted, and so are
the places where the processor has to wait for the GPU: for a number, for the size of a result, for
a copy.

It is no proof that a GPU would do: memory, streams, half precision and the arithmetic of a GPU are
not pretended, and what PyTorch's C++ makes within an operation on a tensor of ours counts as ours.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.settings import ROOT

CUDA = torch.device("cuda:0")
# operations that only look at a tensor in another way, or ask for memory: nothing is launched
VIEWS = [
    "_conj",
    "_reshape_alias",
    "_unsafe_view",
    "alias",
    "as_strided",
    "detach",
    "diagonal",
    "empty",
    "empty_like",
    "empty_strided",
    "expand",
    "lift_fresh",
    "narrow",
    "new_empty",
    "new_empty_strided",
    "permute",
    "real",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "t",
    "transpose",
    "unbind",
    "unfold",
    "unsqueeze",
    "view",
    "view_as",
]
# operations whose result is a number for the processor, or has a size that only the GPU knows
ASKS = [
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
    "unique_dim_consecutive",
]
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class PretendedTensor(Tensor):
    """A tensor on the pretended GPU.

    Args:
        inner: what it holds, on the CPU.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls: type[PretendedTensor], inner: Tensor) -> PretendedTensor:
        outer = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
        )
        outer.inner = inner
        return outer

    def __init__(self, inner: Tensor) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"cuda:0 {self.inner}"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise RuntimeError(f"{func} on a pretended GPU's tensor, outside of `pretended_gpu`")


class Counts:
    """What the pretended GPU was asked to do so far.

    Attributes:
        operations: by name, and the line of ours that asks for it.
        waits: by what the processor waits for, and that line.
    """

    def __init__(self) -> None:
        self.operations: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._calls = [False]

    @property
    def inside(self) -> bool:
        """Whether PyTorch is at work on a tensor of ours."""
        return self._calls[-1]

    @contextmanager
    def call_of(self, arguments: Any) -> Iterator[None]:
        """While a function of PyTorch works on its ``arguments``."""
        self._calls.append(any(isinstance(x, PretendedTensor) for x in tree_leaves(arguments)))
        try:
            yield
        finally:
            self._calls.pop()

    def operation(self, name: str) -> None:
        """One more, where we are now."""
        self.operations[name, _place()] += 1

    def wait(self, what: str) -> None:
        """One more, where we are now."""
        self.waits[what, _place()] += 1

    def reset(self) -> None:
        """From here on."""
        self.operations.clear()
        self.waits.clear()


@contextmanager
def pretended_gpu() -> Iterator[Counts]:
    """Inside PyTorch has a GPU; gives what it is asked to do."""
    counts = Counts()
    with ExitStack() as stack:
        for name, value in _ANSWERS.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, _answer(value)))
        for name in _ASKS_FOR_STREAMS:
            if hasattr(Optimizer, name):
                stack.enter_context(mock.patch.object(Optimizer, name, _answer(None)))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        # or what is ours in a backward pass would go unnoticed
        stack.enter_context(mock.patch.object(torch.autograd, "has_torch_function", _answer(False)))
        stack.enter_context(mock.patch.object(torch.autograd, "grad", _noticed_grad(counts)))
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        set_overwriting = torch.__future__.set_overwrite_module_params_on_conversion
        stack.callback(set_overwriting, before)
        set_overwriting(True)  # not the memory of a parameter is replaced, but the parameter
        stack.enter_context(_Dispatch(counts))
        stack.enter_context(_Functions(counts))
        yield counts


class _Dispatch(TorchDispatchMode):
    """Every operation that reaches a device."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.partition("::")[2]
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = any(isinstance(x, PretendedTensor) for x in tensors)
        # of what PyTorch's C++ makes for a tensor of ours, it asks for on the CPU
        to_gpu = there or _is_gpu(kwargs.get("device")) or (not tensors and self.counts.inside)
        if not to_gpu:
            return func(*args, **kwargs)
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        if name != "copy_":
            _refuse_both(name, args, tensors)
        self._count(name, args, kwargs)
        held = tree_map_only(PretendedTensor, lambda x: x.inner, (args, kwargs))
        out = tree_map_only(Tensor, PretendedTensor, func(*held[0], **held[1]))
        return return_and_correct_aliasing(func, args, kwargs, out) if there else out

    def _count(self, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        if name not in VIEWS:
            self.counts.operation(name)
        if name == "copy_":
            both = {isinstance(x, PretendedTensor) for x in args[:2]}
            if len(both) == 2 and not _is_number(args[1]):
                self.counts.wait("copy")
        elif name in ASKS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.counts.wait(name)
        elif name in INDEXING and _has_mask(args) and not _only_fills(name, args):
            self.counts.wait("boolean index")


class _Functions(TorchFunctionMode):
    """What does not reach a device as an operation, or only without its device."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        there = isinstance(first, PretendedTensor)
        if func in _MOVES and isinstance(first, Tensor):
            return self._moved(func, *args, **kwargs)
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and _is_gpu(kwargs.get("device")):
            return self._across(func(*args, **kwargs | {"device": "cpu"}), True)
        if func is Tensor.new_tensor and there:
            return self._across(first.inner.new_tensor(*args[1:], **kwargs), True)
        if func is Tensor.tolist and there:
            self.counts.wait("tolist")
            return first.inner.tolist()
        if func in (Tensor.numpy, Tensor.__array__) and there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        generator = kwargs.get("generator")
        if isinstance(generator, _Generator) and not isinstance(first, Tensor):
            asked = torch.device(kwargs.get("device") or "cpu")
            if asked.type != generator.device.type:
                raise RuntimeError(f"Expected a '{asked}' generator, found '{generator.device}'")
        with self.counts.call_of((args, kwargs)):
            return func(*args, **kwargs)

    def _moved(self, func: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x.to(...)``, ``x.cpu()`` or ``x.cuda()``."""
        to_gpu, dtype, copy = func is Tensor.cuda, None, kwargs.pop("copy", False)
        if func is Tensor.to:
            other = next((a for a in (*args, kwargs.get("other")) if isinstance(a, Tensor)), None)
            if other is not None:
                args, kwargs = (other.device, other.dtype), {}
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
            to_gpu = isinstance(x, PretendedTensor) if device is None else _is_gpu(device)
        if to_gpu != isinstance(x, PretendedTensor):
            x = self._across(x, to_gpu)
        elif copy:
            x = x.clone()
        return x if dtype is None else x.type(dtype)

    def _across(self, x: Tensor, to_gpu: bool) -> Tensor:
        """A copy on the other device."""
        self.counts.operation("copy")
        self.counts.wait("copy")
        return _Move.apply(x, to_gpu)


class _Move(torch.autograd.Function):
    """From one device to the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, to_gpu: bool) -> Tensor:
        ctx.to_gpu = to_gpu
        return PretendedTensor(x.clone()) if to_gpu else x.inner.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Move.apply(grad, not ctx.to_gpu), None


_MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)


class _Generator(torch.Generator):
    """Random numbers of either device: those of the CPU."""

    def __new__(cls: type[_Generator], device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made._device = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self._device


def _noticed_grad(counts: Counts) -> Callable[..., Any]:
    grad = torch.autograd.grad

    def noticed(outputs: Any, *args: Any, **kwargs: Any) -> Any:
        with counts.call_of(outputs):
            return grad(outputs, *args, **kwargs)

    return noticed


def _refuse_both(name: str, args: tuple, tensors: list[Tensor]) -> None:
    """Raises where an operation gets tensors of both devices that a GPU would not take."""
    # a GPU takes numbers from the CPU, and a CPU's indices
    if not any(isinstance(x, PretendedTensor) for x in tensors):
        return
    strangers = [x for x in tensors if not isinstance(x, PretendedTensor) and x.dim() > 0]
    if name in INDEXING and isinstance(args[0], PretendedTensor):
        strangers = strangers if any(x is args[-1] for x in strangers) else []
    if strangers:
        shapes = ", ".join(str(tuple(x.shape)) for x in strangers)
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} of tensors on {CUDA} and on "
            f"the cpu ({shapes})"
        )


def _has_mask(args: tuple) -> bool:
    indices = (x for x in args[1] if isinstance(x, Tensor))
    return any(x.dtype in (torch.bool, torch.uint8) for x in indices)


def _only_fills(name: str, args: tuple) -> bool:
    """Whether it writes one number where a mask is set, which needs no list of the places."""
    return name != "index" and _is_number(args[2])


def _is_number(x: Tensor) -> bool:
    """Whether it is one that the CPU knows."""
    return not isinstance(x, PretendedTensor) and x.dim() == 0


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _place() -> str:
    """The innermost line of the project that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(ROOT)) and path != __file__ and "site-packages" not in path:
            return f"{path.removeprefix(str(ROOT)).lstrip('/')}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


# what PyTorch says of its GPU
_ANSWERS: dict[str, Any] = {
    "_lazy_init": None,
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "set_device": None,
    "synchronize": None,
    "empty_cache": None,
    "get_device_name": "a pretended GPU",
    "get_device_capability": (9, 0),
    "is_bf16_supported": True,
    "mem_get_info": (8 << 30, 8 << 30),
    "memory_allocated": 0,
    "max_memory_allocated": 0,
    "reset_peak_memory_stats": None,
    "manual_seed_all": None,
    "get_rng_state_all": [],
}

# of an optimiser, by PyTorch's versions: whether a CUDA graph is being recorded
_ASKS_FOR_STREAMS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


def _answer(value: Any) -> Callable[..., Any]:
    def answer(*_: Any, **__: Any) -> Any:
        return value

    return answer
