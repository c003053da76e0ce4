/* The workload's own mathematics: accuracy against libm, known answers of Philox,
 * rounding to 16 bits. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "tools/detmath.h"
#include "tools/dtype.h"
#include "tools/philox.h"

#define TOLERANCE 1e-14

/* Uniform in [0, 1), repeatable. */
static double next(uint64_t *index)
{
    philox_block counter = {{(uint32_t)*index, (uint32_t)(*index >> 32), 0, 0}};
    (*index)++;
    return (double)philox4x32_10(counter, 1).word[0] * 0x1p-32;
}

Test(detmath, agrees_with_libm)
{
    uint64_t index = 0;
    for (int i = 0; i < 200000; i++) {
        double x = (2 * next(&index) - 1) * (i % 2 ? 700 : 1);
        cr_assert(fabs(det_exp(x) / exp(x) - 1) <= TOLERANCE, "exp(%a)", x);
        double y = i % 2 ? exp(x) : 1 - next(&index) * (i % 3 ? 1e-6 : 0.999);
        cr_assert(fabs(det_log(y) - log(y)) <= TOLERANCE * fabs(log(y)), "log(%a)", y);
        double sine, cosine, turns = 2 * next(&index) - 1;
        det_sincos_turns(turns, &sine, &cosine);
        double radians = 6.283185307179586 * turns; /* itself off by 1e-15 */
        cr_assert(fabs(sine - sin(radians)) <= TOLERANCE, "sin of %a turns", turns);
        cr_assert(fabs(cosine - cos(radians)) <= TOLERANCE, "cos of %a turns", turns);
    }
}

Test(detmath, exact_values)
{
    double sine, cosine;
    cr_expect(det_exp(0) == 1 && det_log(1) == 0);
    for (int quarter = -8; quarter <= 8; quarter++) {
        static const double sines[] = {0, 1, 0, -1};
        det_sincos_turns(quarter / 4.0, &sine, &cosine);
        cr_expect(sine == sines[(quarter + 8) % 4] && cosine == sines[(quarter + 9) % 4]);
    }
}

/* From Random123's kat_vectors, philox4x32 10. */
Test(philox, known_answers)
{
    static const struct {
        philox_block counter;
        uint64_t key;
        philox_block expected;
    } cases[] = {
        {{{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
        {{{~0u, ~0u, ~0u, ~0u}}, UINT64_MAX, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
        {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
         UINT64_C(0x299f31d0a4093822),
         {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        philox_block got = philox4x32_10(cases[i].counter, cases[i].key);
        cr_expect_arr_eq(got.word, cases[i].expected.word, sizeof(got.word));
    }
}

Test(dtype, every_16_bit_value_survives)
{
    for (int type = RFA_F16; type <= RFA_BF16; type++)
        for (uint32_t bits = 0; bits < 65536; bits++) {
            uint16_t in = (uint16_t)bits, out;
            double value;
            dtype_unpack((rfa_dtype)type, &in, 1, &value);
            dtype_pack((rfa_dtype)type, &value, 1, &out);
            bool nan = isnan(value);
            if (nan)
                dtype_unpack((rfa_dtype)type, &out, 1, &value);
            cr_assert(nan ? isnan(value) : in == out, "%#x became %#x", in, out);
        }
}

Test(dtype, rounds_to_nearest_even_once)
{
    static const struct {
        rfa_dtype dtype;
        double value;
        uint16_t bits;
    } cases[] = {
        {RFA_F16, 1 + 0x1p-11, 0x3c00},
        {RFA_F16, 1 + 3 * 0x1p-11, 0x3c02},
        {RFA_F16, 1 + 0x1p-11 + 0x1p-40, 0x3c01}, /* through float this would be a tie */
        {RFA_F16, 65519.99, 0x7bff},
        {RFA_F16, 65520, 0x7c00},
        {RFA_F16, 0x1p-25, 0x0000},
        {RFA_F16, 0x1.8p-25, 0x0001},
        {RFA_F16, -0x1.8p-24, 0x8002},
        {RFA_F16, 0x1p-14 - 0x1p-25, 0x0400},
        {RFA_BF16, 1 + 0x1p-8, 0x3f80},
        {RFA_BF16, 1 + 3 * 0x1p-8, 0x3f82},
        {RFA_BF16, 1 + 0x1p-8 + 0x1p-40, 0x3f81},
        {RFA_BF16, 0x1p128, 0x7f80},
        {RFA_BF16, 0x1p-134, 0x0000},
        {RFA_BF16, 0x1.8p-134, 0x0001},
        {RFA_BF16, -INFINITY, 0xff80},
        {RFA_BF16, -0.0, 0x8000},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint16_t got;
        dtype_pack(cases[i].dtype, &cases[i].value, 1, &got);
        cr_expect_eq(got, cases[i].bits, "%a: %#x, expected %#x", cases[i].value, got,
                     cases[i].bits);
    }
}
