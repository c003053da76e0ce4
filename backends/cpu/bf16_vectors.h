/* The instructions that kernels_bf16.c is made of, by instruction set. */
#ifndef RFA_CPU_BF16_VECTORS_H
#define RFA_CPU_BF16_VECTORS_H

#include "lanes.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif
#ifdef RFA_CPU_AMX
#include "amx.h"
#endif

INLINE vector same(float x)
{
    return (vector){0} + x;
}

/* 2^f for f in [0, 1] as a polynomial, within 1.6 * 2^-24 of it before rounding, 1 at 0
 * (found by a minimax fit that holds f = 0). */
#define EXP_2_C5 0.00186713028f
#define EXP_2_C4 0.00901702978f
#define EXP_2_C3 0.0557999127f
#define EXP_2_C2 0.240164444f
#define EXP_2_C1 0.693151295f

INLINE vector exp_2_fraction(vector f)
{
    vector y = same(EXP_2_C5);
    y = y * f + EXP_2_C4;
    y = y * f + EXP_2_C3;
    y = y * f + EXP_2_C2;
    y = y * f + EXP_2_C1;
    return y * f + 1.0f;
}

/* Keeps the compiler from interleaving: all of x is computed before what follows. */
#if defined(__AVX512F__)
#define IN_VECTOR_REGISTER "+v"
#else
#define IN_VECTOR_REGISTER "+w"
#endif
INLINE void in_order(const int n, vector *x)
{
    for (int i = 0; i < n; i++)
        __asm__ volatile("" : IN_VECTOR_REGISTER(x[i]));
}

/* Arguments of exp_2 below this count as -inf, for the reason of CPU_EXP_ZERO. */
#define EXP_2_ZERO (-115.0f)

#if defined(__AVX512F__)

typedef __mmask16 unordered;
#ifdef __AVX512BF16__
typedef __m512bh pair_vector;

/* Register tile of products: 24 sums and four vectors of lanes. */
enum { TILE_ROWS = 4 };

INLINE pair_vector load_pairs(const uint32_t *from)
{
    return (pair_vector)_mm512_load_si512(from);
}

INLINE pair_vector same_pair(const uint16_t *from)
{
    int32_t pair;
    memcpy(&pair, from, sizeof(pair));
    return (pair_vector)_mm512_set1_epi32(pair);
}

INLINE vector dot_pairs(vector sum, pair_vector x, pair_vector y)
{
    return (vector)_mm512_dpbf16_ps((__m512)sum, x, y);
}
#endif

INLINE words widen(const uint16_t *from)
{
    return (words)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
}

INLINE vector greater(vector x, vector y)
{
    return (vector)_mm512_max_ps((__m512)x, (__m512)y);
}

INLINE unordered has_nan(vector x, vector y)
{
    return _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_UNORD_Q);
}

INLINE vector nan_where(unordered any, vector x)
{
    return (vector)_mm512_mask_mov_ps((__m512)x, any, _mm512_set1_ps(NAN));
}

INLINE bool any_but_one(vector x)
{
    return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(1), _CMP_NEQ_UQ) != 0;
}

/* 2^x for x up to 1, within 3.1 units in the last place; NaN for NaN. */
INLINE vector exp_2(vector x)
{
    __m512 fraction = _mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
    __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(EXP_2_ZERO), _CMP_NLT_UQ);
    __m512 mantissa = (__m512)exp_2_fraction((vector)fraction);
    return (vector)_mm512_maskz_scalef_ps(counts, mantissa, (__m512)x);
}

INLINE vector fraction_of(vector x)
{
    return (vector)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
}

/* y 2^floor(x) for y = 2^fraction_of(x); between flush_tiny and keep_tiny, 0 below 2^-126. */
INLINE vector times_power(vector y, vector x)
{
    return (vector)_mm512_scalef_ps((__m512)y, (__m512)x);
}

/* Subnormal results and operands are 0 from here; answers what keep_tiny takes. The
 * barriers keep arithmetic on memory between the two. */
INLINE uint32_t flush_tiny(void)
{
    uint32_t before = _mm_getcsr();
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(before | 0x8040);
    __asm__ volatile("" ::: "memory");
    return before;
}

INLINE void keep_tiny(uint32_t before)
{
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(before);
    __asm__ volatile("" ::: "memory");
}

/* x's and y's lanes as pairs (x, y), rounded to bf16. */
INLINE void store_pairs(uint32_t *to, vector x, vector y)
{
    __m512i joined = (__m512i)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x);
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(order, joined));
}

#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)

typedef words unordered;
typedef bfloat16x8_t pair_vector;

enum { TILE_ROWS = 4 };

INLINE pair_vector load_pairs(const uint32_t *from)
{
    return vreinterpretq_bf16_u32(vld1q_u32(from));
}

INLINE pair_vector same_pair(const uint16_t *from)
{
    uint32_t pair;
    memcpy(&pair, from, sizeof(pair));
    return vreinterpretq_bf16_u32(vdupq_n_u32(pair));
}

INLINE vector dot_pairs(vector sum, pair_vector x, pair_vector y)
{
    return (vector)vbfdotq_f32((float32x4_t)sum, x, y);
}

INLINE words widen(const uint16_t *from)
{
    return (words)vmovl_u16(vld1_u16(from));
}

INLINE vector greater(vector x, vector y)
{
    return (vector)vmaxq_f32((float32x4_t)x, (float32x4_t)y);
}

INLINE unordered has_nan(vector x, vector y)
{
    return (words)(x != x) | (words)(y != y);
}

INLINE vector nan_where(unordered any, vector x)
{
    return (vector)((words)x | any); /* all ones are a NaN */
}

INLINE bool any_but_one(vector x)
{
    return vmaxvq_u32((uint32x4_t)(x != 1.0f)) != 0;
}

INLINE vector fraction_of(vector x)
{
    const words keep = ~(words)(x < EXP_2_ZERO);
    vector within = (vector)((words)x & keep);
    return within - (vector)vrndmq_f32((float32x4_t)within);
}

/* y 2^floor(x) for y = 2^fraction_of(x). */
INLINE vector times_power(vector y, vector x)
{
    const words keep = ~(words)(x < EXP_2_ZERO);
    vector floor = (vector)vrndmq_f32((float32x4_t)((words)x & keep));
    words exponent = (words)vcvtq_s32_f32((float32x4_t)floor) + 127u;
    return (vector)((words)(y * (vector)(exponent << 23)) & keep);
}

/* 2^x for x up to 1, within 3.1 units in the last place; NaN for NaN. */
INLINE vector exp_2(vector x)
{
    return times_power(exp_2_fraction(fraction_of(x)), x);
}

INLINE uint32_t flush_tiny(void)
{
    return 0;
}

INLINE void keep_tiny(uint32_t before)
{
    (void)before;
}

/* x's and y's lanes as pairs (x, y), rounded to bf16. */
INLINE void store_pairs(uint32_t *to, vector x, vector y)
{
    uint16x4_t low = vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t)x));
    uint16x4_t high = vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t)y));
    uint16x4x2_t joined = vzip_u16(low, high);
    vst1q_u16((uint16_t *)to, vcombine_u16(joined.val[0], joined.val[1]));
}

#endif

#endif
