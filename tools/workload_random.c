/* Philox blocks to uniform and normal numbers, four of them to a block. */
#include "tools/workload_random.h"

#include <math.h>
#include <string.h>

#include "tools/detmath.h"
#include "tools/philox.h"

#define BATCH 32 /* blocks made at a time, so that each step is a vectorisable loop */
#define UNIT 0x1p-32

typedef struct words {
    uint32_t word[4][BATCH];
} words;

static void fill_words(random_stream stream, uint32_t first_block, uint32_t blocks, words *out)
{
    for (uint32_t i = 0; i < blocks; i++) {
        philox_block counter = {{
            (first_block + i) | (uint32_t)stream.purpose << 16,
            stream.head,
            (uint32_t)stream.row,
            (uint32_t)(stream.row >> 32),
        }};
        philox_block block = philox4x32_10(counter, stream.seed);
        for (int w = 0; w < 4; w++)
            out->word[w][i] = block.word[w];
    }
}

static void uniforms_of_words(const words *in, uint32_t blocks, double out[4 * BATCH])
{
    for (uint32_t i = 0; i < blocks; i++)
        for (int w = 0; w < 4; w++)
            out[4 * i + w] = ((double)in->word[w][i] + 0.5) * UNIT;
}

/* Box and Muller: words 0 and 1 make two normal numbers, 2 and 3 two more. */
static void normals_of_words(const words *in, uint32_t blocks, double out[4 * BATCH])
{
    double radius[2][BATCH], sine[2][BATCH], cosine[2][BATCH];
    for (int pair = 0; pair < 2; pair++)
        for (uint32_t i = 0; i < blocks; i++) {
            double u = ((double)in->word[2 * pair][i] + 0.5) * UNIT;
            double turns = (double)in->word[2 * pair + 1][i] * UNIT;
            radius[pair][i] = sqrt(-2.0 * det_log(u));
            det_sincos_turns(turns, &sine[pair][i], &cosine[pair][i]);
        }
    for (uint32_t i = 0; i < blocks; i++)
        for (int pair = 0; pair < 2; pair++) {
            out[4 * i + 2 * pair] = radius[pair][i] * cosine[pair][i];
            out[4 * i + 2 * pair + 1] = radius[pair][i] * sine[pair][i];
        }
}

typedef void (*words_fn)(const words *in, uint32_t blocks, double out[4 * BATCH]);

static void fill(random_stream stream, size_t count, double *out, words_fn convert)
{
    words batch;
    double values[4 * BATCH];
    for (size_t done = 0; done < count; done += 4 * BATCH) {
        size_t now = count - done < 4 * BATCH ? count - done : 4 * BATCH;
        uint32_t blocks = (uint32_t)(now + 3) / 4;
        fill_words(stream, (uint32_t)(done / 4), blocks, &batch);
        convert(&batch, blocks, values);
        memcpy(out + done, values, now * sizeof(double));
    }
}

void random_uniforms(random_stream stream, size_t count, double *out)
{
    fill(stream, count, out, uniforms_of_words);
}

void random_normals(random_stream stream, size_t count, double *out)
{
    fill(stream, count, out, normals_of_words);
}
