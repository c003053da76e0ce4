/* Tiles: rows from global to shared memory, and from there through the tensor
 * cores, or through plain multiply-adds, in one layout of accumulators.
 *
 * A warp owns 16 query rows. Lane 4 g + t holds, of every 16 x 8 tile of results,
 * elements (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1). */
#ifndef RFA_CUDA_TILE_CUH
#define RFA_CUDA_TILE_CUH

#include "device.cuh"
#include "shared_memory.cuh"

/* Rows of shared memory are 16 bytes longer than they hold, so that eight of
 * them in a column touch all banks. */
template <class T> constexpr int PAD = 16 / (int)sizeof(T);

/* ---- Wrappers of instructions -------------------------------------------------------------- */

/* 16 bytes to shared memory, zeros where `there` is false. */
__device__ __forceinline__ void copy_async(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void commit_copies()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int pending> __device__ __forceinline__ void wait_copies()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1, __half)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1, __nv_bfloat16)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t pack(float low, float high, __half)
{
    __half2 both = __floats2half2_rn(low, high);
    return *(uint32_t *)&both;
}

__device__ __forceinline__ uint32_t pack(float low, float high, __nv_bfloat16)
{
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&both;
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* `rows` rows from `from`, `stride` elements apart, of `dim` elements (whole
 * 16-byte chunks), into `all` rows of WIDTH; the rest becomes zero. All threads
 * of the block take part; the caller commits. */
template <class T, int WIDTH>
__device__ __forceinline__ void load_rows(T *to, const T *from, int64_t stride, int rows, int all,
                                          int dim)
{
    constexpr int per = 16 / (int)sizeof(T), chunks = WIDTH / per;
    for (int i = threadIdx.x; i < all * chunks; i += blockDim.x) {
        int row = i / chunks, d = i % chunks * per;
        bool there = row < rows && d < dim;
        copy_async(to + row * (WIDTH + PAD<T>)+d, there ? from + row * stride + d : from, there);
    }
}

/* ---- Scores: 16 rows of q against 16 keys ------------------------------------------------------
 */

/* q: the warp's 16 rows; k: 16 keys; two tiles of scores get sums over dim. */
template <class T, int WIDTH>
__device__ __forceinline__ void add_scores(float (&s0)[4], float (&s1)[4], const T *q, const T *k,
                                           int dim)
{
    constexpr int pitch = WIDTH + PAD<T>;
    int lane = threadIdx.x % WARP;
    const T *q_row = q + (lane & 15) * pitch + (lane >> 4) * 8;
    const T *k_row = k + ((lane & 7) + (lane >> 4) * 8) * pitch + ((lane >> 3) & 1) * 8;
#pragma unroll 4
    for (int d = 0; d < dim; d += 16) {
        uint32_t a[4], b[4];
        load_matrices(a, q_row + d);
        load_matrices(b, k_row + d);
        multiply_add(s0, a, b[0], b[1], T());
        multiply_add(s1, a, b[2], b[3], T());
    }
}

__device__ __forceinline__ float add_products(float sum, float4 x, float4 y)
{
    return fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
}

template <int WIDTH>
__device__ __forceinline__ void add_scores_plain(float (&s0)[4], float (&s1)[4], const float *q,
                                                 const float *k, int dim)
{
    constexpr int pitch = WIDTH + PAD<float>;
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const float *q_row = q + g * pitch, *k_row = k + 2 * t * pitch;
#pragma unroll 2
    for (int d = 0; d < dim; d += 4) {
        float4 q0 = *(const float4 *)(q_row + d), q1 = *(const float4 *)(q_row + 8 * pitch + d);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float4 k0 = *(const float4 *)(k_row + e * pitch + d);
            float4 k1 = *(const float4 *)(k_row + (8 + e) * pitch + d);
            s0[e] = add_products(s0[e], q0, k0);
            s0[2 + e] = add_products(s0[2 + e], q1, k0);
            s1[e] = add_products(s1[e], q0, k1);
            s1[2 + e] = add_products(s1[2 + e], q1, k1);
        }
    }
}

template <>
__device__ __forceinline__ void add_scores<float, 64>(float (&s0)[4], float (&s1)[4],
                                                      const float *q, const float *k, int dim)
{
    add_scores_plain<64>(s0, s1, q, k, dim);
}
template <>
__device__ __forceinline__ void add_scores<float, 128>(float (&s0)[4], float (&s1)[4],
                                                       const float *q, const float *k, int dim)
{
    add_scores_plain<128>(s0, s1, q, k, dim);
}
template <>
__device__ __forceinline__ void add_scores<float, 256>(float (&s0)[4], float (&s1)[4],
                                                       const float *q, const float *k, int dim)
{
    add_scores_plain<256>(s0, s1, q, k, dim);
}

/* ---- Values: weights of 16 keys times their values ----------------------------------------------
 */

/* out += weights (two tiles, 16 rows x 16 keys) x v (16 keys), weights rounded to T. */
template <class T, int WIDTH>
__device__ __forceinline__ void add_values(float (&out)[WIDTH / 8][4], const float (&w0)[4],
                                           const float (&w1)[4], const T *v, int dim)
{
    constexpr int pitch = WIDTH + PAD<T>;
    int lane = threadIdx.x % WARP;
    const T *row = v + (lane & 15) * pitch + (lane >> 4) * 8;
    const uint32_t a[4] = {pack(w0[0], w0[1], T()), pack(w0[2], w0[3], T()),
                           pack(w1[0], w1[1], T()), pack(w1[2], w1[3], T())};
#pragma unroll
    for (int d = 0; d < WIDTH / 16; d++) {
        if (d * 16 < dim) {
            uint32_t b[4];
            load_matrices_transposed(b, row + d * 16);
            multiply_add(out[2 * d], a, b[0], b[1], T());
            multiply_add(out[2 * d + 1], a, b[2], b[3], T());
        }
    }
}

/* A warp's weights of 16 keys, by row, on their way from one lane to the others. */
struct weight_tile {
    float row[16][18];
};

/* The same in f32 and key by key; row i takes the first seen[i] (of g and g + 8)
 * alone: a value that the mask hides may be anything. */
template <class T, int WIDTH>
__device__ __forceinline__ void add_values_plain(float (&out)[WIDTH / 8][4], const float (&w0)[4],
                                                 const float (&w1)[4], const T *v, int dim,
                                                 const int (&seen)[2], weight_tile &tile)
{
    constexpr int pitch = WIDTH + PAD<T>;
    constexpr int GROUP = 4; /* tiles of 8 elements at a time */
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    __syncwarp();
#pragma unroll
    for (int e = 0; e < 4; e++) {
        tile.row[g + e / 2 * 8][2 * t + e % 2] = w0[e];
        tile.row[g + e / 2 * 8][8 + 2 * t + e % 2] = w1[e];
    }
    __syncwarp();
    /* Sums of 16 keys apart from the long ones: fewer roundings of large numbers. */
#pragma unroll
    for (int first = 0; first < WIDTH / 8; first += GROUP) {
        float part[GROUP][4] = {};
        if (first * 8 >= dim)
            break;
#pragma unroll 2
        for (int key = 0; key < 16; key++) {
            float p0 = tile.row[g][key], p1 = tile.row[g + 8][key];
            const T *row = v + key * pitch + first * 8 + 2 * t;
#pragma unroll
            for (int d = 0; d < GROUP; d++) {
                float v0 = to_float(row[d * 8]), v1 = to_float(row[d * 8 + 1]);
                if (key < seen[0]) {
                    part[d][0] = fmaf(p0, v0, part[d][0]);
                    part[d][1] = fmaf(p0, v1, part[d][1]);
                }
                if (key < seen[1]) {
                    part[d][2] = fmaf(p1, v0, part[d][2]);
                    part[d][3] = fmaf(p1, v1, part[d][3]);
                }
            }
        }
#pragma unroll
        for (int d = 0; d < GROUP; d++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[first + d][e] += part[d][e];
    }
}

/* Whether this thread's share of `rows` rows holds an infinity or a NaN. */
template <class T, int WIDTH> __device__ __forceinline__ bool any_special(const T *tile, int rows)
{
    bool special = false;
    for (int i = threadIdx.x; i < rows * WIDTH; i += blockDim.x) {
        float x = to_float(tile[i / WIDTH * (WIDTH + PAD<T>)+i % WIDTH]);
        special |= !(fabsf(x) < INFINITY);
    }
    return special;
}

#endif
