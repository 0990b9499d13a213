"""Build the CUDA extension of an unpacked mamba-ssm source distribution, for comparison only.

    python benchmarks/mamba_build.py --source mamba_ssm-2.3.2.post1 --out build/mamba

Only what the benchmarks call is compiled: float32 and bfloat16, real A. The extension's dispatch
names the other types too; a stub written here answers those with an error.
"""

import argparse
import os
import sys
from pathlib import Path

NAME = "selective_scan_cuda"
FILES = (
    "selective_scan.cpp",
    "selective_scan_fwd_bf16.cu",
    "selective_scan_fwd_fp32.cu",
    "selective_scan_bwd_bf16_real.cu",
    "selective_scan_bwd_fp32_real.cu",
)
# The forward files instantiate complex A too, the files named real do not.
STUB = """\
#include <ATen/ATen.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/complex.h>
#include "selective_scan.h"

template <typename input_t, typename weight_t>
void selective_scan_fwd_cuda(SSMParamsBase &, cudaStream_t) {
  TORCH_CHECK(false, "this benchmark build has no such forward kernel");
}
template <typename input_t, typename weight_t>
void selective_scan_bwd_cuda(SSMParamsBwd &, cudaStream_t) {
  TORCH_CHECK(false, "this benchmark build has no such backward kernel");
}
using complex_f = c10::complex<float>;
template void selective_scan_fwd_cuda<at::Half, float>(SSMParamsBase &, cudaStream_t);
template void selective_scan_fwd_cuda<at::Half, complex_f>(SSMParamsBase &, cudaStream_t);
template void selective_scan_bwd_cuda<at::Half, float>(SSMParamsBwd &, cudaStream_t);
template void selective_scan_bwd_cuda<at::Half, complex_f>(SSMParamsBwd &, cudaStream_t);
template void selective_scan_bwd_cuda<at::BFloat16, complex_f>(SSMParamsBwd &, cudaStream_t);
template void selective_scan_bwd_cuda<float, complex_f>(SSMParamsBwd &, cudaStream_t);
"""


def build(source: Path, out: Path) -> Path:
    """Compile into `out`; return the shared library.

    Raises:
        FileNotFoundError: `source` is not an unpacked mamba-ssm.
    """
    from torch.utils import cpp_extension

    folder = source / "csrc" / "selective_scan"
    for name in FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; pass an unpacked mamba-ssm")
    out.mkdir(parents=True, exist_ok=True)
    stub = out / "other_types_stub.cpp"
    stub.write_text(STUB, encoding="utf-8")
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "9.0")
    os.environ.setdefault("MAX_JOBS", "6")
    cpp_extension.load(
        name=NAME,
        sources=[str(folder / name) for name in FILES] + [str(stub)],
        extra_include_paths=[str(folder)],
        extra_cflags=["-O3", "-std=c++20"],
        extra_cuda_cflags=[
            *("-O3", "-std=c++20", "--use_fast_math", "--expt-relaxed-constexpr"),
            *("--expt-extended-lambda", "-U__CUDA_NO_HALF_OPERATORS__"),
            *("-U__CUDA_NO_HALF_CONVERSIONS__", "-U__CUDA_NO_BFLOAT16_OPERATORS__"),
            *("-U__CUDA_NO_BFLOAT16_CONVERSIONS__", "-U__CUDA_NO_BFLOAT162_OPERATORS__"),
        ],
        build_directory=str(out),
        is_python_module=True,
        verbose=True,
    )
    return out / f"{NAME}.so"


def main() -> None:
    """Build, and say where the library lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(build(arguments.source.resolve(), arguments.out.resolve()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
