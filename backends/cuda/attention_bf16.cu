#include "attention.cuh"

ATTENTION_KERNEL(rfa_attend_bf16_64_64, __nv_bfloat16, 64, 64, false)
ATTENTION_KERNEL(rfa_attend_bf16_64_128, __nv_bfloat16, 64, 128, false)
ATTENTION_KERNEL(rfa_attend_bf16_128_64, __nv_bfloat16, 128, 64, false)
ATTENTION_KERNEL(rfa_attend_bf16_128_128, __nv_bfloat16, 128, 128, false)
ATTENTION_KERNEL(rfa_attend_bf16_256_128, __nv_bfloat16, 256, 128, false)
ATTENTION_KERNEL(rfa_attend_bf16_128_small, __nv_bfloat16, 128, 128, true)
ATTENTION_KERNEL(rfa_attend_bf16_256_small, __nv_bfloat16, 256, 128, true)
