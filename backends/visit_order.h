/* Visit lists of the raster and diagonal orders, without a sort.
 *
 * A visit group's distance to key block j falls and then rises with j, so the
 * list is a merge of two runs that leave the nearest block in both directions.
 * In the C subset that every backend compiles.
 */
#ifndef RFA_VISIT_ORDER_H
#define RFA_VISIT_ORDER_H

#include "cube_order.h"

#ifndef RFA_GLOBAL
#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
#define RFA_GLOBAL __global
#else
#define RFA_GLOBAL
#endif
#endif

/* One byte for each key block of a sequence. */
#define RFA_BLOCK_ALWAYS_KEEP 1 /* touched by a range of keys that are always kept */
#define RFA_BLOCK_SINK 2        /* holds one of the caller's first keys */

/* A sequence as the orders see it; its own lengths when packed. len_q > 0. */
typedef struct rfa_visit_shape {
    rfa_index len_q, len_k;
    rfa_index visit_q, block_k;
    int causal;
} rfa_visit_shape;

/* How many key blocks hold an unmasked pair for the rows before end_row (and
 * at or before len_q): they are 0, 1, ... of what this returns. */
RFA_ORDER_FN rfa_index rfa_visible_blocks(rfa_visit_shape shape, rfa_index end_row)
{
    rfa_index keys = shape.len_k;
    if (shape.causal)
        keys = rfa_min_index(keys, rfa_min_index(end_row, shape.len_q) + shape.len_k - shape.len_q);
    return keys > 0 ? (keys + shape.block_k - 1) / shape.block_k : 0;
}

/* 2 len_q times the centre of a group, in keys. */
RFA_ORDER_FN rfa_index rfa_visit_centre(rfa_visit_shape shape, rfa_index group)
{
    rfa_index row = (2 * group + 1) * shape.visit_q;
    if (shape.causal)
        return (row + 2 * (shape.len_k - shape.len_q)) * shape.len_q;
    return row * shape.len_k;
}

/* 2 len_q times the distance of a key block's centre from `centre`. */
RFA_ORDER_FN rfa_index rfa_visit_distance(rfa_visit_shape shape, rfa_index centre, rfa_index block)
{
    rfa_index away = (2 * block + 1) * shape.block_k * shape.len_q - centre;
    return away < 0 ? -away : away;
}

/* The blocks 0 .. blocks - 1 from the nearest outward. */
typedef struct rfa_outward {
    rfa_visit_shape shape;
    rfa_index centre, blocks;
    rfa_index below, above; /* the next one on either side */
} rfa_outward;

RFA_ORDER_FN rfa_outward rfa_outward_from(rfa_visit_shape shape, rfa_index group, rfa_index blocks)
{
    rfa_outward walk;
    rfa_index width = shape.block_k * shape.len_q;
    walk.shape = shape;
    walk.centre = rfa_visit_centre(shape, group);
    walk.blocks = blocks;
    /* The last block whose centre is not past the group's; it or the next is
     * nearest. */
    walk.below = walk.centre < width ? -1 : (walk.centre - width) / (2 * width);
    walk.below = rfa_min_index(walk.below, blocks - 1);
    walk.above = walk.below + 1;
    return walk;
}

/* The next nearest block, ties to the lower one; -1 after the last. */
RFA_ORDER_FN rfa_index rfa_outward_next(rfa_outward *walk)
{
    if (walk->above >= walk->blocks)
        return walk->below < 0 ? -1 : walk->below--;
    if (walk->below >= 0 && rfa_visit_distance(walk->shape, walk->centre, walk->below) <=
                                rfa_visit_distance(walk->shape, walk->centre, walk->above))
        return walk->below--;
    return walk->above++;
}

/* The block that rfa_outward_next returns when called for the n-th time, 0 <= n <
 * blocks, in closed form: blocks lie at one distance from each other, so the two
 * sides take turns until one has no more. */
RFA_ORDER_FN rfa_index rfa_outward_at(rfa_outward walk, rfa_index n)
{
    rfa_index left = walk.below + 1, right = walk.blocks - walk.above, both, used;
    int below_first = 1;
    if (left > 0 && right > 0) {
        rfa_index distance = rfa_visit_distance(walk.shape, walk.centre, walk.below);
        if (distance == 0 && n == 0)
            return walk.below;
        /* Around a centre that is hit, both sides' next are equally far. */
        if (distance == 0) {
            walk.below--;
            left--;
            n--;
        }
        below_first =
            distance == 0 || distance <= rfa_visit_distance(walk.shape, walk.centre, walk.above);
    }
    both = rfa_min_index(left, right);
    used = n / 2;
    if (n >= 2 * both)
        return left > right ? walk.below - (n - both) : walk.above + (n - both);
    return (n % 2 == 0) == below_first ? walk.below - used : walk.above + used;
}

/* Lists the blocks of 0 .. blocks - 1 whose flags have a bit of `any` and none
 * of `none`, but not `except`, ascending from list[count]; returns the new
 * count. `any` 0: all blocks. */
RFA_ORDER_FN rfa_index rfa_list_flagged(const RFA_GLOBAL unsigned char *flags, rfa_index blocks,
                                        int any, int none, rfa_index except, RFA_GLOBAL int *list,
                                        rfa_index count)
{
    for (rfa_index j = 0; j < blocks; j++) {
        if ((any == 0 || (flags[j] & any)) && !(flags[j] & none) && j != except)
            list[count++] = (int)j;
    }
    return count;
}

/* Writes the visit list of a group and returns its length: every block with an
 * unmasked pair for the group, once. Always-keep blocks come first; then, for
 * the diagonal order, the nearest of the others, the sinks, nearest first. */
RFA_ORDER_FN rfa_index rfa_list_visits(rfa_visit_shape shape, rfa_index group, int diagonal,
                                       const RFA_GLOBAL unsigned char *flags, RFA_GLOBAL int *list)
{
    rfa_index blocks = rfa_visible_blocks(shape, (group + 1) * shape.visit_q);
    rfa_index count = rfa_list_flagged(flags, blocks, RFA_BLOCK_ALWAYS_KEEP, 0, -1, list, 0);
    if (!diagonal)
        return rfa_list_flagged(flags, blocks, 0, RFA_BLOCK_ALWAYS_KEEP, -1, list, count);

    rfa_outward walk = rfa_outward_from(shape, group, blocks);
    rfa_index nearest = rfa_outward_next(&walk);
    while (nearest >= 0 && (flags[nearest] & RFA_BLOCK_ALWAYS_KEEP))
        nearest = rfa_outward_next(&walk);
    if (nearest < 0)
        return count;
    list[count++] = (int)nearest;
    count = rfa_list_flagged(flags, blocks, RFA_BLOCK_SINK, RFA_BLOCK_ALWAYS_KEEP, nearest, list,
                             count);
    for (rfa_index j = rfa_outward_next(&walk); j >= 0; j = rfa_outward_next(&walk)) {
        if (!(flags[j] & (RFA_BLOCK_ALWAYS_KEEP | RFA_BLOCK_SINK)))
            list[count++] = (int)j;
    }
    return count;
}

#endif
