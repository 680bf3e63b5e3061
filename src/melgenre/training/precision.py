"""The precision and memory layout in which a device trains fastest; predictions are float32."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from fastai.vision.all import Learner, MixedPrecision, to_float


class GradientScaling(MixedPrecision):
    """The half of fastai's mixed precision that keeps fp16 gradients from vanishing.

    fastai enters autocast before a batch and leaves it after the loss, so an interrupted batch
    leaves the whole process in half precision. `mixed_precision` wraps the forward pass instead.
    """

    def before_batch(self): ...

    def after_loss(self): ...


@contextmanager
def mixed_precision(learn: Learner) -> Iterator[None]:
    """Run the forward passes of training in the fastest precision of the learner's device.

    Validation and everything outside the block stay in float32. The block leaves nothing behind,
    also when it is interrupted, and can be nested.
    """
    model, device = learn.model, learn.dls.device.type
    dtype = training_dtype(device)
    if dtype == torch.float32:
        yield
        return
    plain = model.forward
    fast = torch.autocast(device, dtype)(plain)
    outer = vars(model).get("forward")
    model.forward = lambda *x: to_float(fast(*x)) if model.training else plain(*x)
    scaling = learn.added_cbs(GradientScaling()) if dtype == torch.float16 else nullcontext()
    try:
        with scaling:
            yield
    finally:
        del model.forward
        if outer is not None:
            model.forward = outer


def training_dtype(device: str) -> torch.dtype:
    """The type in which a device multiplies fastest without losing accuracy.

    bfloat16 where the hardware has it, float16 on other CUDA devices, else float32.

    Parameters
    ----------
    device
        Type of a device, as in `torch.device.type`.
    """
    if device == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    return torch.bfloat16 if device == "cpu" and cpu_has_bf16() else torch.float32


def feature_dtype(device: str) -> torch.dtype:
    """The type in which a frozen body computes features to train on.

    float32 on a CPU, so that a head is the same on every CPU.
    """
    return training_dtype(device) if device == "cuda" else torch.float32


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without it, bf16 is slower than float32.

    The environment variable `MELGENRE_BF16` (0 or 1) overrides the hardware, for tests.
    """
    forced = os.environ.get("MELGENRE_BF16")
    if forced:
        return forced == "1"
    # Older torch has no query; fall back to float32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operations on one CPU thread each, so that their last bits are always the same.

    Several threads split sums by their number, and the result then depends on the machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def device_name(device: torch.device) -> str:
    """The name of a device for a record: `cpu`, or a GPU with its model: `cuda (Tesla T4)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def precision_name(dtype: torch.dtype) -> str:
    """The name of a type.

    Examples
    --------
    >>> precision_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")
