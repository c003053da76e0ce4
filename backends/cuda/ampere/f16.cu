#include "attention.cuh"

AMPERE_KERNELS(rfa_ampere_f16_64, __half, 64)
AMPERE_KERNELS(rfa_ampere_f16_128, __half, 128)
