/* Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror and Shaw,
 * "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 random bits are a
 * function of a 128-bit counter and a 64-bit key, so any of them can be had alone. */
#ifndef RFA_TOOLS_PHILOX_H
#define RFA_TOOLS_PHILOX_H

#include <stdint.h>

typedef struct philox_block {
    uint32_t word[4];
} philox_block;

static inline philox_block philox_round(philox_block c, uint32_t key0, uint32_t key1)
{
    uint64_t product0 = (uint64_t)0xD2511F53u * c.word[0];
    uint64_t product1 = (uint64_t)0xCD9E8D57u * c.word[2];
    philox_block next = {{
        (uint32_t)(product1 >> 32) ^ c.word[1] ^ key0,
        (uint32_t)product1,
        (uint32_t)(product0 >> 32) ^ c.word[3] ^ key1,
        (uint32_t)product0,
    }};
    return next;
}

static inline philox_block philox4x32_10(philox_block counter, uint64_t key)
{
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        counter = philox_round(counter, key0, key1);
        key0 += 0x9E3779B9u; /* golden ratio */
        key1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    return counter;
}

#endif
