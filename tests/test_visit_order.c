/* Visit lists without a sort against lists made by sorting distances. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "backends/visit_order.h"

enum { MAX_BLOCKS = 256 };

typedef struct candidate {
    int block, rank;
    rfa_index distance;
} candidate;

/* Always-keep blocks, the nearest other one, sinks, the rest by distance. */
static int compare(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank - y->rank;
    if (x->rank >= 2 && x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->block - y->block;
}

/* The specification's distance times 2 Lq, in 128 bits: |(2 j + 1) block_k Lq -
 * 2 Lq c|. */
static rfa_index plain_distance(rfa_visit_shape s, rfa_index group, rfa_index block)
{
    __int128 row = (__int128)(2 * group + 1) * s.visit_q;
    __int128 centre = s.causal ? (row + 2 * (s.len_k - s.len_q)) * s.len_q : row * s.len_k;
    __int128 away = (__int128)(2 * block + 1) * s.block_k * s.len_q - centre;
    return (rfa_index)(away < 0 ? -away : away);
}

static int visible(rfa_visit_shape s, rfa_index group, rfa_index block)
{
    rfa_index last_row = rfa_min_index((group + 1) * s.visit_q, s.len_q) - 1;
    return !s.causal || block * s.block_k <= last_row + s.len_k - s.len_q;
}

static int plain_list(rfa_visit_shape s, rfa_index group, int diagonal, const unsigned char *flags,
                      int *list)
{
    candidate all[MAX_BLOCKS];
    int count = 0, nearest = -1;
    for (int j = 0; (rfa_index)j * s.block_k < s.len_k; j++) {
        if (!visible(s, group, j))
            continue;
        candidate c = {j, 3, diagonal ? plain_distance(s, group, j) : j};
        if (flags[j] & RFA_BLOCK_ALWAYS_KEEP)
            c.rank = 0;
        else if (diagonal && (nearest < 0 || c.distance < all[nearest].distance))
            nearest = count;
        all[count++] = c;
    }
    for (int i = 0; diagonal && i < count; i++)
        if (all[i].rank == 3 && i != nearest && (flags[all[i].block] & RFA_BLOCK_SINK)) {
            all[i].rank = 2;
            all[i].distance = 0;
        }
    if (nearest >= 0)
        all[nearest].rank = 1;
    qsort(all, (size_t)count, sizeof(all[0]), compare);
    for (int i = 0; i < count; i++)
        list[i] = all[i].block;
    return count;
}

/* Steps and the closed form agree, for every number of blocks in sight. */
static void expect_outward(rfa_visit_shape s, rfa_index group, rfa_index blocks)
{
    rfa_outward walk = rfa_outward_from(s, group, blocks), start = walk;
    for (rfa_index n = 0; n < blocks; n++) {
        rfa_index next = rfa_outward_next(&walk), at = rfa_outward_at(start, n);
        cr_assert_eq(at, next, "Lq %lld Lk %lld group %lld n %lld: %lld, expected %lld", s.len_q,
                     s.len_k, group, n, at, next);
    }
}

static void expect_same(rfa_visit_shape s, const unsigned char *flags)
{
    int list[MAX_BLOCKS], expected[MAX_BLOCKS];
    for (rfa_index group = 0; group * s.visit_q < s.len_q; group++)
        for (int diagonal = 0; diagonal < 2; diagonal++) {
            expect_outward(s, group, rfa_visible_blocks(s, (group + 1) * s.visit_q));
            int wanted = plain_list(s, group, diagonal, flags, expected);
            rfa_index count = rfa_list_visits(s, group, diagonal, flags, list);
            cr_assert_eq(count, wanted, "Lq %lld Lk %lld group %lld", s.len_q, s.len_k, group);
            for (int i = 0; i < wanted; i++)
                cr_assert_eq(list[i], expected[i],
                             "Lq %lld Lk %lld visit_q %lld block_k %lld causal %d group %lld "
                             "diagonal %d: visit %d is %d, expected %d",
                             s.len_q, s.len_k, s.visit_q, s.block_k, s.causal, group, diagonal, i,
                             list[i], expected[i]);
        }
}

static void expect_list(rfa_visit_shape s, rfa_index group, int diagonal,
                        const unsigned char *flags, const int *expected, int count)
{
    int list[MAX_BLOCKS];
    cr_assert_eq(rfa_list_visits(s, group, diagonal, flags, list), count);
    cr_expect_arr_eq(list, expected, (size_t)count * sizeof(int));
}

Test(visit_order, diagonal_by_hand)
{
    /* 6 blocks of 10 keys, 3 groups of 20 rows: group 1 centres on key 30, so
     * blocks 2 and 3 tie, then 1 and 4, then 0 and 5. */
    rfa_visit_shape s = {60, 60, 20, 10, 0};
    unsigned char flags[6] = {0};
    const int plain[] = {2, 3, 1, 4, 0, 5};
    expect_list(s, 1, 1, flags, plain, 6);
    flags[0] = flags[1] = RFA_BLOCK_SINK; /* 16 keys reach into the second block */
    const int sinks[] = {2, 0, 1, 3, 4, 5};
    expect_list(s, 1, 1, flags, sinks, 6);
    flags[2] = flags[5] = RFA_BLOCK_ALWAYS_KEEP;
    const int kept[] = {2, 5, 3, 0, 1, 4};
    expect_list(s, 1, 1, flags, kept, 6);
    flags[0] |= RFA_BLOCK_ALWAYS_KEEP;
    const int both[] = {0, 2, 5, 3, 1, 4};
    expect_list(s, 1, 1, flags, both, 6);
}

Test(visit_order, raster_by_hand)
{
    rfa_visit_shape s = {60, 60, 20, 10, 0};
    unsigned char flags[6] = {RFA_BLOCK_SINK, 0, 0, 0, RFA_BLOCK_ALWAYS_KEEP, 0};
    const int expected[] = {4, 0, 1, 2, 3, 5};
    expect_list(s, 0, 0, flags, expected, 6);
}

Test(visit_order, causal_by_hand)
{
    /* Rows 0 to 3 see keys up to r: group 0 (rows 0, 1) sees block 0 of 2 keys;
     * group 1 sees both, nearest its own. */
    rfa_visit_shape s = {4, 4, 2, 2, 1};
    unsigned char flags[2] = {RFA_BLOCK_SINK, RFA_BLOCK_SINK};
    const int first[] = {0}, second[] = {1, 0};
    expect_list(s, 0, 1, flags, first, 1);
    expect_list(s, 1, 1, flags, second, 2);
    /* More queries than keys: the first rows see nothing. */
    rfa_visit_shape tall = {6, 2, 2, 2, 1};
    expect_list(tall, 0, 1, flags, first, 0);
    expect_list(tall, 1, 1, flags, first, 0);
    expect_list(tall, 2, 1, flags, first, 1);
}

Test(visit_order, many_shapes)
{
    unsigned char flags[MAX_BLOCKS];
    unsigned seed = 7;
    for (int trial = 0; trial < 3000; trial++) {
        seed = seed * 1664525u + 1013904223u;
        unsigned r = seed >> 4;
        rfa_visit_shape s = {1 + r % 197, 1 + r / 7 % 211, 1 + r / 5 % 70, 1 + r / 3 % 40,
                             (int)(r & 1)};
        for (int j = 0; j < MAX_BLOCKS; j++)
            flags[j] = (unsigned char)(trial % 3 == 0 ? 0 : (r >> (j % 23)) % 29 == 0 ? 1 : 0);
        for (rfa_index j = 0; j * s.block_k < 16 && j < MAX_BLOCKS; j++)
            flags[j] |= RFA_BLOCK_SINK;
        expect_same(s, flags);
    }
}

/* The longest lengths that the library takes: products stay within 64 bits. */
Test(visit_order, distances_of_huge_lengths)
{
    const rfa_index most = (rfa_index)1 << 30;
    for (int causal = 0; causal < 2; causal++) {
        rfa_visit_shape s = {most, most - 5, 65536, 4096, causal};
        rfa_index last_group = (most - 1) / 65536, last_block = (most - 6) / 4096;
        const rfa_index groups[] = {0, last_group / 2, last_group};
        const rfa_index blocks[] = {0, last_block / 3, last_block};
        for (int i = 0; i < 9; i++) {
            rfa_index got =
                rfa_visit_distance(s, rfa_visit_centre(s, groups[i / 3]), blocks[i % 3]);
            cr_expect_eq(got, plain_distance(s, groups[i / 3], blocks[i % 3]));
        }
    }
}
