#include "attention.cuh"

AMPERE_KERNELS(rfa_ampere_bf16_64, __nv_bfloat16, 64, 64)
AMPERE_KERNELS(rfa_ampere_bf16_128, __nv_bfloat16, 128, 128)
AMPERE_KERNELS(rfa_ampere_bf16_128_halves, __nv_bfloat16, 128, 64)
