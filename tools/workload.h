/* The synthetic workload `video` of docs/specification.md section 7: q, k and v
 * of a made-up video, the same bytes on every machine.
 *
 * Choices where the specification is silent:
 * - Token (t, h, w) of the grid sits at ((t + 1/2) / T, (h + 1/2) / H, (w + 1/2) / W)
 *   for object positions and for the field. An object is at
 *   position + velocity * (t + 1/2) / T. The field's channel is
 *   sqrt(2/32) * sum of 32 cos(2 pi (f . x + phase)).
 * - Rotary positions are the integer indices t, h, w; pair i of an axis with d
 *   dims turns by index * 10000^(-2i/d); an odd last dim does not turn.
 * - The first 16 keys of a sink head are the file's first 16 tokens.
 * - Wv ~ N(0, 1/64) like A and B. u, A, B, Wv, w are per head, the scene per file.
 *   u is one for q and k.
 * - Normal numbers come in fours from one Philox4x32-10 block with the seed as key
 *   and (index, head, purpose) as counter, so any part of the file can be made
 *   alone. Sums run in an order that neither threads nor chunks change.
 */
#ifndef RFA_TOOLS_WORKLOAD_H
#define RFA_TOOLS_WORKLOAD_H

#include "backends/backend.h"

typedef enum workload_kind {
    WORKLOAD_LOCAL,
    WORKLOAD_OBJECT,
    WORKLOAD_MIXED,
    WORKLOAD_DIFFUSE,
    WORKLOAD_SINK,
    WORKLOAD_KINDS
} workload_kind;

typedef enum workload_tensor { WORKLOAD_Q, WORKLOAD_K, WORKLOAD_V } workload_tensor;

#define WORKLOAD_MAX_HEADS 1024
#define WORKLOAD_MAX_DIM 256

typedef struct workload_spec {
    int64_t grid[3]; /* t, h, w; each >= 1 */
    int32_t heads;   /* 1 to WORKLOAD_MAX_HEADS */
    int32_t dim;     /* 1 to WORKLOAD_MAX_DIM */
    rfa_dtype dtype;
    uint64_t seed;
    /* Head h is of kinds[h % kind_count]. 0: all five in the order above. */
    int32_t kind_count;
    workload_kind kinds[64];
} workload_spec;

typedef struct workload_preset {
    const char *name;
    int64_t grid[3];
    int32_t heads, dim;
} workload_preset;

/* The presets of section 7; the last one's name is NULL. */
extern const workload_preset workload_presets[];
/* NULL if there is none of that name. */
const workload_preset *workload_find_preset(const char *name);

/* "local", ...; false for another name. */
const char *workload_kind_name(workload_kind kind);
bool workload_find_kind(const char *name, workload_kind *kind);
workload_kind workload_head_kind(const workload_spec *spec, int32_t head);

/* T * H * W of a valid spec. */
int64_t workload_tokens(const workload_spec *spec);
/* RFA_INVALID_ARGUMENT with a sentence if a field is out of its range or the
 * three tensors together pass 2^53 bytes. */
rfa_status workload_check(const workload_spec *spec, rfa_error *err);

/* Writes tokens first_token .. first_token + token_count - 1 of one tensor to
 * dst as compact (token_count, heads, dim) of the spec's dtype. Uses OpenMP's
 * threads; chunks of some thousand tokens are worth the set-up.
 * RFA_INVALID_ARGUMENT: a bad spec or range. RFA_OUT_OF_MEMORY. */
rfa_status workload_fill(const workload_spec *spec, workload_tensor which, int64_t first_token,
                         int64_t token_count, void *dst, rfa_error *err);

/* FNV-1a, 64 bits, continued from `state`. */
#define WORKLOAD_CHECKSUM_START UINT64_C(0xcbf29ce484222325)
uint64_t workload_checksum(uint64_t state, const void *data, size_t size);

/* The checksum over the bytes of q, then k, then v of preset tiny, seed 1, bf16.
 * If it changes, every published measurement is of other inputs. */
#define WORKLOAD_TINY_CHECKSUM UINT64_C(0x82276bddf296c91f)

#endif
