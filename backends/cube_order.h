/* Token order: computed (cube) position -> caller's position, in closed form.
 *
 * Grid tokens come first, cube by cube (cubes in raster order, raster inside a
 * cube, ragged at the far edges); then the tokens before the grid, then those
 * after it. In the C subset that every backend compiles.
 */
#ifndef RFA_CUBE_ORDER_H
#define RFA_CUBE_ORDER_H

#ifndef RFA_ORDER_FN
#if defined(__CUDACC__) || defined(__HIPCC__)
#define RFA_ORDER_FN static __host__ __device__ __forceinline__
#else
#define RFA_ORDER_FN static inline
#endif
#endif

#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef long rfa_index;
#else
typedef long long rfa_index;
#endif

/* size 0,0,0: no grid, both orders are one. cube is never 0 here. */
typedef struct rfa_cubes {
    rfa_index offset;
    rfa_index size[3];
    rfa_index cube[3];
} rfa_cubes;

RFA_ORDER_FN rfa_index rfa_min_index(rfa_index a, rfa_index b)
{
    return a < b ? a : b;
}

RFA_ORDER_FN rfa_index rfa_caller_position(rfa_cubes g, rfa_index p)
{
    rfa_index frame = g.size[1] * g.size[2];
    rfa_index tokens = g.size[0] * frame;
    if (p >= tokens) {
        rfa_index other = p - tokens;
        return other < g.offset ? other : other + tokens;
    }
    /* A slab of cubes holds cube[0] whole frames; a beam, cube[1] rows of it. */
    rfa_index t0 = p / (g.cube[0] * frame) * g.cube[0];
    rfa_index depth = rfa_min_index(g.cube[0], g.size[0] - t0);
    p -= t0 * frame;
    rfa_index h0 = p / (depth * g.cube[1] * g.size[2]) * g.cube[1];
    rfa_index height = rfa_min_index(g.cube[1], g.size[1] - h0);
    p -= depth * h0 * g.size[2];
    rfa_index w0 = p / (depth * height * g.cube[2]) * g.cube[2];
    rfa_index width = rfa_min_index(g.cube[2], g.size[2] - w0);
    p -= depth * height * w0;
    rfa_index t = t0 + p / (height * width);
    rfa_index h = h0 + p / width % height;
    rfa_index w = w0 + p % width;
    return g.offset + (t * g.size[1] + h) * g.size[2] + w;
}

#endif
