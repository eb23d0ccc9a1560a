"""Compiles every Triton kernel for a GPU that is not there: `python tests/compile_kernels.py [ARCH]` prints their names.

Triton's interpreter runs what its compiler may refuse. Here each launch of the real functions, on CPU tensors, ends in a
compiled kernel instead of a launch, with the types and the specialisations (1, multiples of 16) that a launch would have.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64"}
TYPES |= {torch.int8: "i8", torch.int32: "i32", torch.int64: "i64"}


def compiled(kernel, args, options, arch):
    """What `JITFunction.run` would launch: the compiled kernel, and the values of its constants by name."""
    given = dict(zip(kernel.arg_names, args, strict=False)) | options
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if isinstance(value, torch.Tensor):
            signature[parameter.name] = f"*{TYPES[value.dtype]}"
            attributes[(place,)] = [["tt.divisibility", 16]]
        elif parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif type(value) is int:
            signature[parameter.name] = "i32" if value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    made = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={name: options[name] for name in ("num_warps", "num_stages") if name in options},
    )
    assert made.asm["cubin"]
    return made, constants


def launches():
    """Every kernel of the package, in the shapes, types and layouts of training on a GPU."""
    from csl.ops import SelectiveOptions, abn_triton, blur_pool_triton, excitation_triton, selective_triton

    x = torch.zeros(2, 64, 60, 60, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    attention = torch.zeros(2, 64, dtype=torch.bfloat16)
    vector, batches = torch.zeros(64), torch.zeros((), dtype=torch.int64)
    for images in (x, x.contiguous().float()):
        abn_triton.statistics(images)
        made = abn_triton.prepare(images, vector, vector, vector, batches, 0.1, 1e-5)
        abn_triton.backward_sums(images, images, vector, 1e-3)
        for slope, inverse, joined in ((1e-3, 3, None), (1.0, 1, None), (1.0, 1, images)):
            abn_triton.normalise(images, made, vector, slope, joined)
            abn_triton.backward(images, images, vector, vector, made, inverse, 1e-3, slope, joined)
        blur_pool_triton.blur_backward(blur_pool_triton.blur(images), 60, 60)
        excitation_triton.join(images, attention, images)
        for joined in (images, None):
            excitation_triton.backward_sums(images, images, joined)
    logits, targets = torch.zeros(4, 9605, dtype=torch.bfloat16), torch.zeros(4, 9605, dtype=torch.int8)
    for mode, scope in (
        ("selective", "batch"),
        ("selective", "sample"),
        ("ignore_normalize_classes", "batch"),
        (None, "batch"),
    ):
        options = SelectiveOptions(
            mode, 0.05, 0.0, 1.0, 4.0, likelihood_topk=200, topk_scope=scope, focal_gradient=mode is None
        )
        selective_triton.on_gpu(logits, targets, torch.zeros(9605), options)


if __name__ == "__main__":
    ARCH = int(sys.argv[1]) if len(sys.argv) > 1 else 90

    def compile_instead(kernel, *args, grid, warmup, **options):
        compiled(kernel, args, options, ARCH)
        print(kernel.fn.__name__, flush=True)

    triton.runtime.jit.JITFunction.run = compile_instead
    launches()
