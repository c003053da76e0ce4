/* f16 and bf16: every number, every tie between two, and the cpu backend's own. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>

#include "backends/cpu/convert.h"
#include "backends/half.h"

typedef struct format {
    int mantissa, bias;
    float (*load)(uint16_t bits);
    uint16_t (*store)(double x);
    float (*cpu_load)(uint16_t bits);
    uint16_t (*cpu_store)(float x);
} format;

static const format formats[] = {
    {10, 15, rfa_f16_to_f32, rfa_f16_of_double, cpu_from_half, cpu_to_half},
    {7, 127, rfa_bf16_to_f32, rfa_bf16_of_double, cpu_from_bf16, cpu_to_bf16},
};

/* By the definition of the format. */
static double meaning(const format *f, uint16_t bits)
{
    int exponent = (bits & 0x7fff) >> f->mantissa, one = 1 << f->mantissa;
    int fraction = bits & (one - 1);
    double size = exponent == 0 ? ldexp(fraction, 1 - f->bias - f->mantissa)
                                : ldexp(one + fraction, exponent - f->bias - f->mantissa);
    if (exponent == 2 * f->bias + 1)
        size = fraction ? NAN : INFINITY;
    return bits & 0x8000 ? -size : size;
}

static bool same(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b);
}

Test(half, every_number)
{
    for (int f = 0; f < 2; f++)
        for (uint32_t i = 0; i < 65536; i++) {
            const format *form = &formats[f];
            uint16_t bits = (uint16_t)i;
            double value = meaning(form, bits);
            cr_assert(same((double)form->load(bits), value), "%d: %04x", f, i);
            cr_assert(same((double)form->cpu_load(bits), value), "%d: cpu, %04x", f, i);
            uint16_t stored = form->store(value), cpu_stored = form->cpu_store((float)value);
            cr_assert(isnan(value) ? isnan(meaning(form, stored)) : stored == bits, "%04x", i);
            cr_assert(isnan(value) ? isnan(meaning(form, cpu_stored)) : cpu_stored == bits,
                      "cpu, %04x", i);
        }
}

static void expect_stored(const format *f, double value, uint16_t bits)
{
    for (int sign = 0; sign < 2; sign++) {
        double x = sign ? -value : value;
        uint16_t expected = (uint16_t)(bits | sign << 15);
        cr_assert_eq(f->store(x), expected, "%a: %04x, not %04x", x, f->store(x), expected);
        if ((double)(float)x == x)
            cr_assert_eq(f->cpu_store((float)x), expected, "cpu, %a: %04x, not %04x", x,
                         f->cpu_store((float)x), expected);
    }
}

Test(half, ties_go_to_even)
{
    for (int f = 0; f < 2; f++) {
        const format *form = &formats[f];
        uint16_t infinity = (uint16_t)((2 * form->bias + 1) << form->mantissa);
        for (uint32_t i = 0; i < infinity; i++) {
            double low = meaning(form, (uint16_t)i), high = meaning(form, (uint16_t)(i + 1));
            if (isinf(high)) /* the number that would come next */
                high = ldexp(1, form->bias + 1);
            double middle = (low + high) / 2;
            expect_stored(form, middle, (uint16_t)(i + (i & 1)));
            expect_stored(form, nextafter(middle, 0), (uint16_t)i);
            expect_stored(form, nextafter(middle, INFINITY), (uint16_t)(i + 1));
            expect_stored(form, (double)nextafterf((float)middle, 0), (uint16_t)i);
            expect_stored(form, (double)nextafterf((float)middle, INFINITY), (uint16_t)(i + 1));
        }
        expect_stored(form, 1e300, infinity);
        expect_stored(form, INFINITY, infinity);
        expect_stored(form, 1e-300, 0);
    }
}
