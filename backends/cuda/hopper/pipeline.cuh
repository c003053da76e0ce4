/* Thin names for the instructions that move tiles and hand them over: the copy
 * engine (TMA), mbarriers, named barriers, register counts. */
#ifndef RFA_HOPPER_PIPELINE_CUH
#define RFA_HOPPER_PIPELINE_CUH

#include <stdint.h>

#include <cuda.h>

#include "backends/cuda/shared_memory.cuh"

/* ---- mbarriers: 8 bytes of shared memory each, given by shared address ------------------- */

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/* After the inits: the copy engine sees them. */
__device__ __forceinline__ void barrier_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives, and the phase then also waits for that many bytes of copies. */
__device__ __forceinline__ void barrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Until the phase of this parity is over. */
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* Whether it is over. */
__device__ __forceinline__ bool barrier_passed(uint32_t barrier, uint32_t parity)
{
    int passed;
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, done;\n"
                 "}\n"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return passed != 0;
}

/* A place in a ring of stages and the parity of its current phase. */
template <int stages> struct ring {
    uint32_t stage = 0, parity = 0;

    __device__ __forceinline__ void next()
    {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* ---- Copy engine ---------------------------------------------------------------------------- */

__device__ __forceinline__ void prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* One box at (element, row, head, batch) of a tensor, completing on `barrier`. */
__device__ __forceinline__ void load_box(uint32_t to, const CUtensorMap *map, uint32_t barrier,
                                         int element, int row, int head, int batch)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(element), "r"(row), "r"(head), "r"(batch)
                 : "memory");
}

/* ---- Named barriers (ids 1 to 15; 0 is __syncthreads) ---------------------------------------- */

__device__ __forceinline__ void group_sync(int id, int threads)
{
    asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* A barrier that also tells whether every thread said yes. */
__device__ __forceinline__ bool group_all(int id, int threads, bool yes)
{
    int all;
    asm volatile("{\n"
                 ".reg .pred yes, all;\n"
                 "setp.ne.b32 yes, %3, 0;\n"
                 "barrier.cta.red.and.pred all, %1, %2, yes;\n"
                 "selp.b32 %0, 1, 0, all;\n"
                 "}\n"
                 : "=r"(all)
                 : "r"(id), "r"(threads), "r"((int)yes)
                 : "memory");
    return all != 0;
}

/* To a word of shared memory; what was there. */
__device__ __forceinline__ uint32_t add_shared(uint32_t address, uint32_t x)
{
    uint32_t before;
    asm volatile("atom.shared::cta.add.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "r"(address), "r"(x)
                 : "memory");
    return before;
}

__device__ __forceinline__ uint4 load_shared(uint32_t address)
{
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(address)
                 : "memory");
    return x;
}

__device__ __forceinline__ void store_shared(uint32_t address, uint4 x)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x.x), "r"(x.y),
                 "r"(x.z), "r"(x.w)
                 : "memory");
}

/* What this thread wrote to shared memory is there for products and copies too. */
__device__ __forceinline__ void fence_for_products()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- Registers a thread, for the whole warpgroup --------------------------------------------- */

template <int count> __device__ __forceinline__ void registers_release()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

template <int count> __device__ __forceinline__ void registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

#endif
