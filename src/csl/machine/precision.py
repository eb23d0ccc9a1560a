"""The precision that a device computes in best, and why."""

import torch

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")  # of processors that multiply in it; the last is ARM's


def preferred_precision(device: torch.device) -> tuple[torch.dtype | None, str]:
    """The dtype of autocast that `--amp auto` takes, None for float32, and one clause that says why."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16, "the GPU computes in bf16"
        return torch.float16, "the GPU does not compute in bf16"
    if device.type != "cpu":
        return None, f"nothing is known of {device}"
    if (found := cpu_bf16()) is None:
        return None, "the processor does not compute in bf16"
    return torch.bfloat16, f"the processor computes in bf16 ({found})"


def cpu_bf16() -> str | None:
    """The instructions by which this processor computes in bf16; None without, or where PyTorch does not tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return next((name for name in _INSTRUCTIONS if capabilities.get(name)), None)
