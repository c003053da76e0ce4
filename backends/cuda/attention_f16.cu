#include "attention.cuh"

ATTENTION_KERNEL(rfa_attend_f16_64_64, __half, 64, 64, false)
ATTENTION_KERNEL(rfa_attend_f16_64_128, __half, 64, 128, false)
ATTENTION_KERNEL(rfa_attend_f16_128_64, __half, 128, 64, false)
ATTENTION_KERNEL(rfa_attend_f16_128_128, __half, 128, 128, false)
ATTENTION_KERNEL(rfa_attend_f16_256_128, __half, 256, 128, false)
ATTENTION_KERNEL(rfa_attend_f16_128_small, __half, 128, 128, true)
ATTENTION_KERNEL(rfa_attend_f16_256_small, __half, 256, 128, true)
