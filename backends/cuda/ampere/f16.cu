#include "attention.cuh"

AMPERE_KERNELS(rfa_ampere_f16_64, __half, 64, 64)
AMPERE_KERNELS(rfa_ampere_f16_128, __half, 128, 128)
AMPERE_KERNELS(rfa_ampere_f16_128_halves, __half, 128, 64)
