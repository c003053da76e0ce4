/* Which work item a block of threads takes next: one that nobody has. By the K producer's warp. */
#ifndef RFA_HOPPER_QUEUE_CUH
#define RFA_HOPPER_QUEUE_CUH

#include "layout.cuh"

/* Items are numbered, those of a head on end. Where heads may differ in what they keep (`cost`),
 * the dearest one with items left goes first, so that the last items to end are short. What a head
 * costs is what the first of its items to end took: blocks begin with items of as many heads as
 * there are, and a head of which none has ended took longest so far (or nobody began with it: its
 * turn comes then). From then on all blocks are at work on one head or two, whose keys and values
 * L2 holds. It is a guess that decides about order alone; of items of four visits or fewer it is
 * one about nothing. */
struct work_queue {
    const hopper_params &p;
    int lane;
    uint32_t began = 0; /* cycles, when this item's keys began to come */

    __device__ __forceinline__ uint32_t first()
    {
        began = clock();
        return p.cost ? blockIdx.x % p.heads * p.items_head + blockIdx.x / p.heads : blockIdx.x;
    }

    /* How many items of a head, or of all, blocks began with. */
    __device__ __forceinline__ uint32_t first_ones(uint32_t head)
    {
        return p.begun + (head < p.begun_more);
    }

    /* The dearest head that has items left, or p.heads. */
    __device__ __forceinline__ uint32_t dearest()
    {
        uint32_t most = 0, best = p.heads;
#pragma unroll 1
        for (uint32_t head = lane; head < p.heads; head += 32) {
            uint32_t cost = *(volatile uint32_t *)(p.cost + head) - 1; /* not known: the largest */
            uint32_t taken = *(volatile uint32_t *)(p.taken + head) + first_ones(head);
            if (taken < (uint32_t)p.items_head && (best == p.heads || cost > most)) {
                most = cost;
                best = head;
            }
        }
        uint32_t all = __reduce_max_sync(~0u, most);
        return __reduce_min_sync(~0u, most == all ? best : p.heads);
    }

    /* head: of the item that is all but through */
    __device__ __forceinline__ void tell_cost(uint32_t head)
    {
        volatile uint32_t *cost = p.cost + head;
        uint32_t now = clock();
        if (lane == 0 && *cost == 0)
            *cost = (now - began) | 1;
        began = now;
        __syncwarp();
    }

    /* After item `number`, of `head`, which is all but through. */
    __device__ __forceinline__ uint32_t next(uint32_t number, uint32_t head)
    {
        if (!p.taken)
            return number + gridDim.x;
        if (p.cost)
            tell_cost(head);
        uint32_t place;
        do {
            head = p.cost ? dearest() : 0;
            place = lane == 0 && head < p.heads ? atomicAdd(p.taken + head, 1u) : 0;
            place = __shfl_sync(~0u, place, 0) + first_ones(head);
        } while (p.cost && head < p.heads && place >= (uint32_t)p.items_head);
        return head * (uint32_t)p.items_head + place;
    }
};

#endif
