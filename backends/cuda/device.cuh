/* Small things that all kernels of this backend share. */
#ifndef RFA_CUDA_DEVICE_CUH
#define RFA_CUDA_DEVICE_CUH

#include <math.h>
#include <stdint.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backends/skip_rule.h"
#include "backends/visit_order.h"

#include "call.h"
#include "numbers.cuh"

__device__ __forceinline__ int64_t ceil_div(int64_t x, int64_t by)
{
    return (x + by - 1) / by;
}

__device__ __forceinline__ int64_t smaller(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

/* Of a grid of one dimension. */
__device__ __forceinline__ int64_t global_thread()
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ int64_t global_warp()
{
    return global_thread() / WARP;
}

template <class T>
__device__ __forceinline__ T *row_at(const cuda_rows &rows, int64_t batch, int64_t head,
                                     int64_t row)
{
    return (T *)rows.data + batch * rows.stride[0] + head * rows.stride[1] + row * rows.stride[2];
}

__device__ __forceinline__ int64_t sequence_index(const cuda_call &c, int64_t batch)
{
    return c.packed ? batch : 0;
}

__device__ __forceinline__ rfa_visit_shape shape_of(const cuda_call &c, const cuda_sequence &s)
{
    rfa_visit_shape shape = {s.len_q, s.len_k, c.visit_q, c.block_k, c.causal};
    return shape;
}

/* A (batch, head, n) of a flat index, n fastest. */
struct place_of_head {
    int64_t batch, head, n;
};

__device__ __forceinline__ place_of_head split_index(int64_t index, int64_t heads, int64_t count)
{
    place_of_head at = {index / count / heads, index / count % heads, index % count};
    return at;
}

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(__half x)
{
    return __half2float(x);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

__device__ __forceinline__ void store_float(float *to, float x)
{
    *to = x;
}
__device__ __forceinline__ void store_float(__half *to, float x)
{
    *to = __float2half_rn(x);
}
__device__ __forceinline__ void store_float(__nv_bfloat16 *to, float x)
{
    *to = __float2bfloat16_rn(x);
}

/* Element `i` of a row of any type. */
__device__ __forceinline__ float load_element(const void *row, int dtype, int64_t i)
{
    switch (dtype) {
    case CUDA_F16: return to_float(((const __half *)row)[i]);
    case CUDA_BF16: return to_float(((const __nv_bfloat16 *)row)[i]);
    default: return ((const float *)row)[i];
    }
}

__device__ __forceinline__ void store_element(void *row, int dtype, int64_t i, float x)
{
    switch (dtype) {
    case CUDA_F16: store_float((__half *)row + i, x); break;
    case CUDA_BF16: store_float((__nv_bfloat16 *)row + i, x); break;
    default: ((float *)row)[i] = x;
    }
}

__device__ __forceinline__ int64_t element_offset(const cuda_rows &rows, int64_t batch,
                                                  int64_t head, int64_t row)
{
    return batch * rows.stride[0] + head * rows.stride[1] + row * rows.stride[2];
}

__device__ __forceinline__ int element_size(int dtype)
{
    return dtype == CUDA_F32 ? 4 : 2;
}

#endif
