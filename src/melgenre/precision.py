"""The precision and memory layout in which a learner's device is fastest."""

import torch
from fastai.vision.all import Callback, to_float


class CpuBf16(Callback):
    """bf16 autocast while training on a CPU; fastai's own mixed precision is for CUDA alone."""

    order = 10
    run_valid = False

    def before_batch(self):
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16)
        self.autocast.__enter__()

    def after_pred(self):
        self.learn.pred = to_float(self.pred)

    def after_loss(self):
        self.autocast.__exit__(None, None, None)


def cpu_has_bf16():
    """Whether this CPU multiplies bf16 in hardware; without it, bf16 is slower than float32."""
    # Older torch does not tell; then float32 it is, which is right everywhere.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def accelerated(learn):
    """The learner in the precision and memory layout in which its device is fastest."""
    on_cuda = learn.dls.device.type == "cuda"
    learn.to_channelslast(use_amp=on_cuda)
    if learn.dls.device.type == "cpu" and cpu_has_bf16():
        learn.add_cb(CpuBf16())
    return learn
