/* What the kernels of attention.cuh are made of: instructions with names, swizzled tiles
 * in shared memory, and the ring in which tiles of keys and values take turns. */
#ifndef RFA_CUDA_AMPERE_PIECES_CUH
#define RFA_CUDA_AMPERE_PIECES_CUH

#include "backends/cuda/numbers.cuh"

#include "launch.h"

#define RFA_RECIPROCAL(x) reciprocal_fast(x)
#include "backends/cuda/device.cuh"
#include "backends/cuda/tile.cuh"

namespace ampere
{

constexpr int BLOCK_Q = AMPERE_BLOCK_Q, BLOCK_K = AMPERE_BLOCK_K;

/* ---- Numbers --------------------------------------------------------------------------------- */

__device__ __forceinline__ float warp_sum(float x)
{
    for (int step = 1; step < WARP; step *= 2)
        x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

/* What all lanes of a warp hold; the compiler may then keep it in a uniform register. */
__device__ __forceinline__ uint32_t uniform(uint32_t x)
{
    return __shfl_sync(ALL_LANES, x, 0);
}

/* Of four numbers the one that this lane of a quad speaks for. */
__device__ __forceinline__ float own_of_quad(const float (&x)[4], int lane)
{
    float low = lane & 1 ? x[1] : x[0], high = lane & 1 ? x[3] : x[2];
    return lane & 2 ? high : low;
}

/* ---- Shared memory --------------------------------------------------------------------------- */

__device__ __forceinline__ void load_matrices_at(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed_at(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void copy_chunk(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

/* Rows of DIM elements in chunks of 16 bytes, chunk c of row r at c ^ (r & 7), so that
 * neither copies nor ldmatrix meet bank conflicts. */
template <int DIM> struct tile_layout {
    static constexpr int pitch = DIM * 2, bytes = BLOCK_K * pitch;
};

/* Where rows of a head lie: of keys, of values. */
struct row_source {
    const char *first;
    int64_t pitch; /* bytes */
    int chunks;    /* of 16 bytes that a row has */
};

/* `all` rows of a tile, of which `rows` exist, by `threads` threads. What does not exist
 * is not read, and becomes zero. */
template <int DIM, int all, int threads>
__device__ __forceinline__ void load_tile(uint32_t to, const char *from, int64_t pitch, int rows,
                                          int chunks, int thread)
{
    constexpr int per_row = DIM / 8, step = threads / per_row;
    static_assert(step % 8 == 0, "a thread keeps its place in the swizzle");
    int row = thread / per_row, chunk = thread % per_row;
    from += row * pitch + chunk * 16;
    to += row * tile_layout<DIM>::pitch + ((chunk ^ (row & 7)) << 4);
    rows = chunk < chunks ? rows - row : 0;
    if (rows > all - step) {
#pragma unroll
        for (int i = 0; i < all / step; i++, from += step * pitch)
            copy_chunk(to + i * step * tile_layout<DIM>::pitch, from, true);
        return;
    }
#pragma unroll
    for (int i = 0; i < all / step; i++, from += step * pitch)
        copy_chunk(to + i * step * tile_layout<DIM>::pitch, from, i * step < rows);
}

/* 32 rows by one warp. */
template <int DIM>
__device__ __forceinline__ void load_quarter(uint32_t to, const char *from, int64_t pitch, int rows,
                                             int chunks, int lane)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = i * 8 + lane / 4;
#pragma unroll
        for (int j = 0; j < DIM / 32; j++) {
            int chunk = j * 4 + lane % 4;
            bool there = row < rows && chunk < chunks;
            copy_chunk(to + row * tile_layout<DIM>::pitch + ((chunk ^ (row & 7)) << 4),
                       there ? from + row * pitch + chunk * 16 : from, there);
        }
    }
}

/* ---- Barriers in shared memory --------------------------------------------------------------- */

/* compute-sanitizer's racecheck reports copies into a slot of the ring against reads of what
 * was there. It takes the arrival of one lane for a warp, after __syncwarp, for that lane's
 * alone: of a ring of a few lines that computes right it says the same, and nothing once every
 * lane arrives. */

__device__ __forceinline__ void start_barrier(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
                 : "memory");
}

__device__ __forceinline__ void arrive(uint32_t barrier)
{
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(barrier)
                 : "memory");
}

/* Once this thread's copies so far have landed. The instruction wants a uniform register: an
 * address of which the compiler does not know that it is uniform costs a loop over the lanes'. */
__device__ __forceinline__ void arrive_after_copies(uint32_t barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ bool has_passed(uint32_t barrier, uint32_t parity)
{
    uint32_t passed;
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity)
                 : "memory");
#else
    asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity)
                 : "memory");
#endif
    return passed;
}

__device__ __forceinline__ void wait_for(uint32_t barrier, uint32_t parity)
{
    while (!has_passed(barrier, parity))
        ;
}

/* ---- The ring -------------------------------------------------------------------------------- */

/* A warp's place in the ring. */
struct place_in_ring {
    int slot;
    uint32_t parity; /* of the rounds so far */
};

__device__ __forceinline__ place_in_ring after(place_in_ring p, int slots)
{
    bool last = p.slot + 1 == slots;
    return {last ? 0 : p.slot + 1, last ? p.parity ^ 1 : p.parity};
}

__device__ __forceinline__ place_in_ring before(place_in_ring p, int slots)
{
    bool first = p.slot == 0;
    return {first ? slots - 1 : p.slot - 1, first ? p.parity ^ 1 : p.parity};
}

/* ---- What can be had again is not worth registers all along ---------------------------------- */

#define READ_AGAIN(name, special)                                                                  \
    __device__ __forceinline__ int name()                                                          \
    {                                                                                              \
        int x;                                                                                     \
        asm volatile("mov.u32 %0, %%" special ";" : "=r"(x));                                      \
        return x;                                                                                  \
    }

READ_AGAIN(thread_now, "tid.x")
READ_AGAIN(block_x_now, "ctaid.x")
READ_AGAIN(block_y_now, "ctaid.y")
READ_AGAIN(block_z_now, "ctaid.z")

} // namespace ampere

#endif
