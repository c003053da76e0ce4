/* Tiles of AMX: eight registers of 16 rows of 64 bytes, always used whole.
 *
 * With RFA_CPU_AMX_EMULATED the same names compute in plain C, so that tests
 * can run the AMX kernels where there is no AMX. Tile numbers are constants. */
#ifndef RFA_CPU_AMX_H
#define RFA_CPU_AMX_H

#include <string.h>

#include "convert.h"

enum { TILE_LINES = 16, TILE_BYTES = 64 };

#ifndef RFA_CPU_AMX_EMULATED

#include <immintrin.h>

/* Palette 1, all tiles whole, and zero. The layout is the instruction's. */
static inline void tile_configure(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = TILE_BYTES;
        config.rows[i] = TILE_LINES;
    }
    /* gcc 12 believes that only the first 8 bytes are read, and leaves out the rest. */
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

#define tile_release() _tile_release()
#define tile_zero(tile) _tile_zero(tile)
#define tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride) _tile_stored(tile, to, stride)
#define tile_dot(sum, a, b) _tile_dpbf16ps(sum, a, b)
/* gcc's tile loads do not say that they read memory. */
#define tile_fence() __asm__ volatile("" ::: "memory")

#else

static _Thread_local uint32_t tile_register[8][TILE_LINES][TILE_BYTES / 4];

static inline void tile_configure(void)
{
    memset(tile_register, 0, sizeof(tile_register));
}

static inline void tile_release(void)
{
    memset(tile_register, 0xff, sizeof(tile_register)); /* NaNs, should they be used */
}

static inline void tile_zero(int tile)
{
    memset(tile_register[tile], 0, sizeof(tile_register[tile]));
}

static inline void tile_load(int tile, const void *from, int64_t stride)
{
    for (int i = 0; i < TILE_LINES; i++)
        memcpy(tile_register[tile][i], (const char *)from + i * stride, TILE_BYTES);
}

static inline void tile_store(int tile, void *to, int64_t stride)
{
    for (int i = 0; i < TILE_LINES; i++)
        memcpy((char *)to + i * stride, tile_register[tile][i], TILE_BYTES);
}

/* Subnormal operands count as 0, as AMX has it. */
static inline float tile_operand(uint32_t bits)
{
    return bits & 0x7f800000 ? cpu_float_of(bits) : cpu_float_of(bits & 0x80000000);
}

static inline void tile_dot(int sum, int a, int b)
{
    for (int i = 0; i < TILE_LINES; i++)
        for (int k = 0; k < TILE_BYTES / 4; k++) {
            uint32_t pair = tile_register[a][i][k];
            float low = tile_operand(pair << 16), high = tile_operand(pair & 0xffff0000);
            for (int j = 0; j < TILE_BYTES / 4; j++) {
                uint32_t with = tile_register[b][k][j];
                float x = cpu_float_of(tile_register[sum][i][j]);
                x += low * tile_operand(with << 16);
                x += high * tile_operand(with & 0xffff0000);
                tile_register[sum][i][j] = cpu_bits_of(x);
            }
        }
}

#define tile_fence() ((void)0)

#endif

#endif
