/* The closed form of the cube order against a plain enumeration. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "backends/cube_order.h"

/* Caller's positions in computed order, by walking the cubes. */
static rfa_index *enumerate(rfa_cubes g, rfa_index total)
{
    rfa_index *order = malloc((size_t)total * sizeof(*order)), count = 0;
    rfa_index tokens = g.size[0] * g.size[1] * g.size[2];
    cr_assert_not_null(order);
    for (rfa_index t0 = 0; t0 < g.size[0]; t0 += g.cube[0])
        for (rfa_index h0 = 0; h0 < g.size[1]; h0 += g.cube[1])
            for (rfa_index w0 = 0; w0 < g.size[2]; w0 += g.cube[2])
                for (rfa_index t = t0; t < rfa_min_index(t0 + g.cube[0], g.size[0]); t++)
                    for (rfa_index h = h0; h < rfa_min_index(h0 + g.cube[1], g.size[1]); h++)
                        for (rfa_index w = w0; w < rfa_min_index(w0 + g.cube[2], g.size[2]); w++)
                            order[count++] = g.offset + (t * g.size[1] + h) * g.size[2] + w;
    cr_assert_eq(count, tokens);
    for (rfa_index i = 0; i < total; i++)
        if (i < g.offset || i >= g.offset + tokens)
            order[count++] = i;
    cr_assert_eq(count, total);
    return order;
}

static void expect_same(rfa_cubes g, rfa_index total)
{
    rfa_index *order = enumerate(g, total);
    for (rfa_index i = 0; i < total; i++)
        cr_assert_eq(rfa_caller_position(g, i), order[i],
                     "grid %lld x %lld x %lld at %lld, cube %lld x %lld x %lld: position %lld",
                     g.size[0], g.size[1], g.size[2], g.offset, g.cube[0], g.cube[1], g.cube[2], i);
    free(order);
}

Test(cube_order, two_by_hand)
{
    /* 1 x 2 x 3 in cubes of 1 x 2 x 2: 0 1 3 4 | 2 5. */
    rfa_cubes g = {0, {1, 2, 3}, {1, 2, 2}};
    const rfa_index expected[] = {0, 1, 3, 4, 2, 5};
    for (int i = 0; i < 6; i++)
        cr_expect_eq(rfa_caller_position(g, i), expected[i]);
    /* The same grid after 2 tokens of text and before 1: they follow. */
    g.offset = 2;
    const rfa_index shifted[] = {2, 3, 5, 6, 4, 7, 0, 1, 8};
    for (int i = 0; i < 9; i++)
        cr_expect_eq(rfa_caller_position(g, i), shifted[i]);
}

Test(cube_order, no_grid_is_the_callers_order)
{
    rfa_cubes none = {0, {0, 0, 0}, {4, 4, 4}};
    for (rfa_index i = 0; i < 1000; i += 37)
        cr_expect_eq(rfa_caller_position(none, i), i);
}

Test(cube_order, every_small_grid)
{
    for (rfa_index t = 1; t <= 5; t++)
        for (rfa_index h = 1; h <= 9; h += 2)
            for (rfa_index w = 1; w <= 9; w++)
                for (rfa_index offset = 0; offset <= 7; offset += 7) {
                    rfa_cubes g = {offset, {t, h, w}, {4, 4, 4}};
                    expect_same(g, offset + t * h * w + offset / 2);
                }
}

Test(cube_order, odd_cubes)
{
    for (rfa_index i = 0; i < 60; i++) {
        rfa_cubes g = {
            i % 5, {1 + i % 7, 1 + i % 11, 1 + i % 13}, {1 + i % 3, 1 + i % 5, 1 + i % 9}};
        expect_same(g, g.offset + g.size[0] * g.size[1] * g.size[2] + i % 4);
    }
}

Test(cube_order, cubes_larger_than_the_grid_change_nothing)
{
    rfa_cubes g = {3, {2, 3, 5}, {100, 100, 100}};
    for (rfa_index i = 0; i < 30; i++)
        cr_expect_eq(rfa_caller_position(g, i), 3 + i);
}

Test(cube_order, a_real_video_grid)
{
    rfa_cubes g = {226, {13, 22, 40}, {4, 4, 4}};
    expect_same(g, 226 + 13 * 22 * 40 + 10);
}

/* Sizes whose products pass 2^31: each cube's first token is still its corner. */
Test(cube_order, positions_past_32_bits)
{
    rfa_cubes g = {0, {4000, 2000, 2000}, {4, 4, 4}};
    rfa_index frame = g.size[1] * g.size[2], slab = 4 * frame;
    cr_expect_eq(rfa_caller_position(g, 999 * slab), 999 * slab);
    cr_expect_eq(rfa_caller_position(g, 999 * slab + 64), 999 * slab + 4);
    cr_expect_eq(rfa_caller_position(g, 1000 * slab - 1), 1000 * slab - 1);
}
