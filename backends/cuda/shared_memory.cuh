/* Shared memory by the address that instructions take. */
#ifndef RFA_CUDA_SHARED_MEMORY_CUH
#define RFA_CUDA_SHARED_MEMORY_CUH

#include <stdint.h>

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ uint32_t load_shared_word(uint32_t address)
{
    uint32_t x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
    return x;
}

#endif
