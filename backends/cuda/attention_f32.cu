#include "attention.cuh"

ATTENTION_KERNEL(rfa_attend_f32_64_small, float, 64, 128, true)
ATTENTION_KERNEL(rfa_attend_f32_128_small, float, 128, 128, true)
ATTENTION_KERNEL(rfa_attend_f32_256_small, float, 256, 128, true)
