/* A consumer: one warpgroup, which computes 64 q rows, one decision block. */
#ifndef RFA_HOPPER_CONSUMER_CUH
#define RFA_HOPPER_CONSUMER_CUH

#include "layout.cuh"
#include "softmax.cuh"
#include "wgmma.cuh"

constexpr float ln_2 = 0.693147180559945309f;

enum verdict { SKIP_BLOCK, KEEP_BLOCK, WEIGH_AGAIN };

template <typename T, int dim, walk_mode mode, int groups, bool varied> struct consumer {
    using t = tile<dim>;
    static constexpr int out_registers = dim / 2;
    static constexpr bool votes = mode == WALK_VOTE || mode == WALK_MEASURED;
    static constexpr bool measures = mode != WALK_DENSE && mode != WALK_VOTE;
    /* Of one visit and row, in weights: more would not fit the input type or, summed up, make
     * the output overflow early. */
    static constexpr float most_mass = is_bf16<T> ? 1048576.f : 16384.f;

    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    int group, thread; /* warpgroup; thread in it */
    float factor;      /* scale log2(e) */

    /* Of the work item. */
    float limit; /* of the rule */
    int visits;  /* still to come */
    int rows;    /* that exist */
    float share; /* of each of them in a mean */

    /* Of this thread's two rows. Weights are 2^(score factor - offset). */
    float offset[2], sum[2];
    float skipped[2]; /* mass */
    float level[2]; /* energy: ln sum; blasst and estimated masses: max over kept keys, unscaled */

    ring<HOPPER_K_STAGES> stage; /* of this visit's keys */
    bool keys_ready = false;     /* the next visit's */

    float score[64]; /* then weights; then, two in one, in the first half, those of the products */
    float out[out_registers];

    __device__ __forceinline__ rfa_skip_rule rule() const
    {
        return rule_of(p, limit);
    }

    /* ---- Products ---- */

    __device__ __forceinline__ void issue_scores(uint32_t stage)
    {
        uint32_t q = wgmma_operand(s.q + group * t::q_bytes, 16);
        uint32_t keys = wgmma_operand(s.k + stage * t::k_bytes, 16);
        wgmma_pin(score);
        wgmma_begin();
        wgmma_shared_first<T>(score, q, keys);
#pragma unroll
        for (int step = 1; step < dim / 16; step++) {
            int half = step / 4, inside = step % 4 * 32;
            uint32_t b = keys + ((half * t::k_half + inside) >> 4);
            wgmma_shared<T>(score, q + ((half * t::q_half + inside) >> 4), b);
        }
        wgmma_commit();
    }

    __device__ __forceinline__ void await_scores(uint32_t listed)
    {
        wgmma_wait<0>();
        wgmma_pin(score);
        if (__builtin_expect(listed & RAGGED, 0)) {
            if (varied) {
                const int keys[2] = {keys_seen(listed, 0), keys_seen(listed, 1)};
                mask_unseen(score, keys, thread % 4);
            } else {
                mask_past_end(score, (int)(p.len_k % HOPPER_BLOCK_K), thread % 4);
            }
        }
    }

    /* Output += weights times the V tile of visit n. */
    __device__ __forceinline__ void issue_values(uint32_t n)
    {
        uint32_t values = wgmma_operand(s.v + n % HOPPER_V_STAGES * t::k_bytes, t::k_half);
        WAIT_FOR_VISIT(v_ready, n);
        wgmma_pin(out);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < HOPPER_BLOCK_K / 16; step++)
            wgmma_registers<T>(
                out, __float_as_uint(score[8 * step]), __float_as_uint(score[8 * step + 1]),
                __float_as_uint(score[8 * step + 2]), __float_as_uint(score[8 * step + 3]),
                values + (step * 16 * 128 >> 4));
        wgmma_commit();
    }

    __device__ __forceinline__ void await_values()
    {
        wgmma_wait<0>();
        wgmma_pin(out);
    }

    /* ---- Keys that rows do not see: varied kernels ---- */

    /* Of the decision block. */
    __device__ __forceinline__ int own_row(int r)
    {
        return thread / 32 * 16 + thread % 32 / 4 + 8 * r;
    }

    __device__ __forceinline__ int32_t &row_keys(int r)
    {
        return s.x->row_keys[group][thread / 4 + 32 * r];
    }

    /* How many keys of a visit row r sees, the first ones. */
    __device__ __forceinline__ int keys_seen(uint32_t listed, int r)
    {
        int keys = row_keys(r) - (int)(listed & block_bits<varied>)*HOPPER_BLOCK_K;
        return keys < 0 ? 0 : keys < HOPPER_BLOCK_K ? keys : HOPPER_BLOCK_K;
    }

    /* Whether some row of the warpgroup does not see all keys of a visit; its first row sees least.
     * Only after a barrier since the work item began, which shows what another warp wrote of it. */
    __device__ __forceinline__ bool hides_keys(uint32_t listed)
    {
        int end = (int)((listed & block_bits<varied>)+1) * HOPPER_BLOCK_K;
        return (listed & RAGGED) && s.x->row_keys[group][0] < end;
    }

    /* Whether no row sees any: a visit that the warpgroup does not count. */
    __device__ __forceinline__ bool passes(uint32_t listed)
    {
        return varied && __any_sync(~0u, (listed & PASSED << group) != 0);
    }

    /* hidden_keys.cuh: */

    __device__ void clear_values_beyond(uint32_t tile, int rows);
    __device__ bool hides_special(uint32_t listed, uint32_t n);
    __device__ float weight_of(float word, int key);
    __device__ void add_values_by_key(uint32_t listed, uint32_t n);
    __device__ int keys_of_row(const work_item &item, const item_span &span, int r);
    __device__ void clear_rows_beyond();

    /* ---- Handing back ---- */

    /* By all threads, after a barrier of the warpgroup since the scores were computed. */
    __device__ __forceinline__ void release_keys(uint32_t stage)
    {
        if (thread == 0) {
            barrier_arrive(BARRIER(k_empty, stage));
            if (visits == 1) /* the last scores of these q rows */
                barrier_arrive(BARRIER(q_empty, group));
        }
    }

    __device__ __forceinline__ void say_done(uint32_t n)
    {
        __syncwarp(); /* this lane speaks for the warp's reads */
        if (thread % 32 == 0)
            barrier_arrive(BARRIER(done, n % SLOTS));
    }

    /* ---- Weights ---- */

    __device__ __forceinline__ bool exists(int r)
    {
        return own_row(r) < rows;
    }

    /* False for NaN. */
    __device__ __forceinline__ bool fits(const float (&mass)[2])
    {
        return mass[0] <= most_mass && mass[1] <= most_mass;
    }

    /* Offsets that suit scores up to `top` too. */
    __device__ __forceinline__ void raise_offsets(const float (&top)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++)
            offset[r] = larger(offset[r], top[r] * factor);
    }

    /* What was relative to other offsets: masses, and apart from them the output. */
    __device__ __forceinline__ void move_sums(const float (&decay)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] *= decay[r];
            if (measures)
                skipped[r] *= decay[r];
        }
    }

    __device__ __forceinline__ void move_output(const float (&decay)[2])
    {
#pragma unroll
        for (int i = 0; i < out_registers; i++)
            out[i] *= decay[i / 2 % 2];
    }

    /* What is seldom needed of a row. Its four threads write the same, after all have read. */
    __device__ __forceinline__ row_memory &memory(int r)
    {
        return s.x->memory[group][thread / 4 + 32 * r];
    }

    __device__ __forceinline__ void pack_weights()
    {
#pragma unroll
        for (int i = 0; i < 32; i++)
            score[i / 4 * 8 + i % 4] = __uint_as_float(pack<T>(score[2 * i], score[2 * i + 1]));
    }

    /* ---- Decisions ---- */

    __device__ __forceinline__ bool all_rows_vote(const float (&top)[2])
    {
        bool skip = true, energy = p.rule == RFA_SKIP_ENERGY;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float above =
                energy ? fmaf(top[r], factor, -offset[r]) * ln_2 : (top[r] - level[r]) * p.scale;
            above = rfa_above_if_any(top[r], above);
            skip &= !exists(r) | (bool)rfa_row_votes_skip(rule(), above, 0.f, level[r]);
        }
        return group_all(GROUP_BARRIER + group, 128, skip);
    }

    /* What a row says to skipping: a veto is more than any budget. A mass that is far too large,
     * which estimates may be, is one: the reciprocal of a sum next to the largest number is 0. */
    __device__ __forceinline__ void ask_row(int r, float mass, float &lost, float &spent)
    {
        rfa_row_share share = rfa_share_of_row(rule(), sum[r], skipped[r], mass);
        bool veto = share.veto | !(mass <= 0x1p100f);
        lost += exists(r) ? veto ? 1e9f : share.lost : 0.f;
        spent += exists(r) ? share.spent : 0.f;
    }

    __device__ __forceinline__ verdict judge(const float (&mass)[2], bool again, bool must_keep,
                                             uint32_t n)
    {
        float lost = 0, spent = 0;
        ask_row(0, mass[0], lost, spent);
        ask_row(1, mass[1], lost, spent);
        if (mode == WALK_EXACT && !again && !fits(mass))
            lost = NAN;
        /* Threads of a row hold the same: even ones add up what would be lost, odd ones
         * what was spent. */
        float all = rows_sum(thread % 2 ? spent : lost);
        float4 *tell = thread % 2 ? &s.x->spent[group][n % 2] : &s.x->lost[group][n % 2];
        if (thread % 32 < 2)
            ((float *)tell)[thread / 32] = all;
        const rfa_visit_budget budget =
            varied ? s.x->budget[group][n % VISITS_KNOWN] : s.x->visit[n % VISITS_KNOWN].budget;
        look_ahead();
        group_sync(GROUP_BARRIER + group, 128);
        float4 l = s.x->lost[group][n % 2], w = s.x->spent[group][n % 2];
        lost = (l.x + l.y) + (l.z + l.w);
        spent = (w.x + w.y) + (w.z + w.w);
        bool skip = rfa_visit_within_budget(rule(), budget, lost * share, spent * share, false);
        bool keep = __any_sync(~0u, must_keep | !skip);
        if (mode == WALK_EXACT && __any_sync(~0u, !again & !(lost == lost)))
            return WEIGH_AGAIN;
        return keep ? KEEP_BLOCK : SKIP_BLOCK;
    }

    __device__ __forceinline__ uint32_t shared_votes(uint32_t n)
    {
        return s.exchange_address + (uint32_t)offsetof(exchange, votes) + n % SLOTS * 4;
    }

    /* The first to keep a visit, or the last to skip it, calls for V. */
    __device__ __forceinline__ void publish(bool keep, uint32_t n)
    {
        if (thread != 0)
            return;
        uint32_t before = add_shared(shared_votes(n), keep ? KEPT << group : 1u);
        if (before < KEPT && (keep || before == groups - 1))
            barrier_arrive(BARRIER(wanted, n % SLOTS));
    }

    __device__ __forceinline__ void count_kept(const float (&mass)[2], const float (&top)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] += mass[r];
            if (votes)
                level[r] = p.rule == RFA_SKIP_ENERGY ? __logf(sum[r]) : larger(level[r], top[r]);
            if (mode == WALK_ESTIMATED) {
                level[r] = larger(level[r], top[r]);
                learn(memory(r), rfa_kappa_learns((top[r] - level[r]) * p.scale, 0.f),
                      mass[r] * exp2_fast(fmaf(-top[r], factor, offset[r])));
            }
        }
    }

    __device__ __forceinline__ void learn(row_memory &row, bool learns, float ratio)
    {
        float learned = row.estimate.learned + 1,
              kappa = rfa_kappa_update(row.estimate.kappa, ratio, learned);
        __syncwarp();
        if (learns) {
            row.estimate.learned = learned;
            row.estimate.kappa = kappa;
        }
    }

    /* Only recalls next to 0 come near the largest number; an infinity would turn into NaN. */
    __device__ __forceinline__ void count_skipped(const float (&mass)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++)
            skipped[r] = fminf(skipped[r] + mass[r], LARGEST);
    }

    /* ---- One visit ----
     *
     * Weights are computed relative to offsets that lag behind the maxima, which saves looking
     * for these. Where they turn out too large all is done again from the scores on, relative to
     * maxima, and so is the first visit at once. */

    /* The weights are in the place of the scores. */
    __device__ __forceinline__ verdict visit_exact(float (&mass)[2], uint32_t listed, bool again,
                                                   uint32_t n)
    {
        if (__builtin_expect(again, 0))
            propose_offsets();
        exponentials(score, factor, offset, mass);
        verdict v = judge(mass, again, listed & KEEP << group, n);
        if (passes(listed) && v == KEEP_BLOCK)
            v = SKIP_BLOCK;
        if (__builtin_expect(again, 0))
            settle_offsets(v == KEEP_BLOCK, mass);
        if (__builtin_expect(v == WEIGH_AGAIN, 0))
            group_sync(GROUP_BARRIER + group, 128); /* all have read the answer */
        return v;
    }

    /* The row's four threads write the same, after all have read. */
    __device__ __forceinline__ void propose_offsets()
    {
        float top[2], decay[2];
        compare_maxima(score, top);
        __syncwarp();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            memory(r).before = {offset[r], sum[r], skipped[r]};
            decay[r] = offset[r];
        }
        raise_offsets(top);
        decay[0] = exp2_fast(decay[0] - offset[0]);
        decay[1] = exp2_fast(decay[1] - offset[1]);
        move_sums(decay);
    }

    /* Raised offsets stay if the block is kept, or if nothing was kept before. */
    __device__ __forceinline__ void settle_offsets(bool keep, float (&mass)[2])
    {
        float decay[2];
        group_sync(GROUP_BARRIER + group, 128); /* all have read the answer */
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const auto before = memory(r).before;
            decay[r] = exp2_fast(before.offset - offset[r]);
            if (!keep && before.offset > -LARGEST) {
                mass[r] *= exp2_fast(offset[r] - before.offset);
                offset[r] = before.offset;
                sum[r] = before.sum;
                skipped[r] = before.skipped;
            }
        }
        if (keep)
            move_output(decay);
    }

    /* What estimated masses are where the largest weight is 1. */
    __device__ __forceinline__ void expect_masses(uint32_t listed, float (&mass)[2])
    {
        float keys = (float)(listed & RAGGED ? (int)(p.len_k % HOPPER_BLOCK_K) : HOPPER_BLOCK_K);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (varied)
                keys = (float)(listed & RAGGED ? keys_seen(listed, r) : HOPPER_BLOCK_K);
            mass[r] = memory(r).estimate.learned > 0 ? memory(r).estimate.kappa : keys;
        }
    }

    /* By the maxima of a visit, before there are weights. mass: what expect_masses said. */
    __device__ __forceinline__ bool decide(const float (&top)[2], uint32_t listed, float (&mass)[2],
                                           uint32_t n)
    {
        bool must_keep = listed & KEEP << group;
        if (votes) {
            look_ahead();
            return __any_sync(~0u, !all_rows_vote(top) | must_keep);
        } else {
#pragma unroll
            for (int r = 0; r < 2; r++)
                mass[r] *= exp2_fast(fmaf(top[r], factor, -offset[r]));
            return judge(mass, false, must_keep, n) == KEEP_BLOCK;
        }
    }

    __device__ __forceinline__ verdict visit_by_maxima(float (&mass)[2], float (&top)[2],
                                                       uint32_t listed, bool again, uint32_t n)
    {
        bool keep = true;
        if (mode != WALK_DENSE || __builtin_expect(again, 0))
            compare_maxima(score, top);
        if (__builtin_expect(again, 0)) {
            const float before[2] = {offset[0], offset[1]};
            raise_offsets(top);
            const float decay[2] = {exp2_fast(before[0] - offset[0]),
                                    exp2_fast(before[1] - offset[1])};
            move_sums(decay);
            move_output(decay);
        } else if (mode != WALK_DENSE) {
            keep = decide(top, listed, mass, n);
        }
        if (passes(listed))
            return pass_visit(mass, again);
        if (keep || mode == WALK_MEASURED)
            exponentials(score, factor, offset, mass);
        if (!keep)
            return SKIP_BLOCK;
        if (mode == WALK_DENSE || __builtin_expect(again, 0))
            look_ahead();
        bool fine = group_all(GROUP_BARRIER + group, 128, fits(mass));
        return __any_sync(~0u, fine | again) ? KEEP_BLOCK : WEIGH_AGAIN;
    }

    /* A visit that no row sees anything of, by maxima: whoever did not ask the rule has not looked
     * ahead, nor waited for the other warps' scores. */
    __device__ __forceinline__ verdict pass_visit(float (&mass)[2], bool again)
    {
        mass[0] = mass[1] = 0;
        if (mode == WALK_DENSE || again) {
            look_ahead();
            group_sync(GROUP_BARRIER + group, 128);
        }
        return SKIP_BLOCK;
    }

    /* What follows from a visit and need not come first, while the next one's scores are under
     * way. The vote comes before all are done; both come after the next visit's keys are there,
     * which the gate counts on, but for a work item's last visit. */
    __device__ __forceinline__ void end_visit(const float (&mass)[2], bool kept, uint32_t n)
    {
        if (!kept && !(varied && mode == WALK_DENSE))
            publish(false, n);
        say_done(n);
        if (!kept && measures)
            count_skipped(mass);
    }

    /* Whether the next visit's keys are there, which takes a while to learn. (That may be the next
     * work item's first visit. Nobody brings any after the last one's.) */
    __device__ __forceinline__ void look_ahead()
    {
        ring<HOPPER_K_STAGES> next = stage;
        next.next();
        keys_ready = barrier_passed(BARRIER(k_full, next.stage), next.parity);
    }

    /* All visits of a work item, from n on. There is one place for each product, or the assembler
     * would not let them run on. */
    __device__ __forceinline__ void walk(uint32_t &n)
    {
        bool kept = false, ends = false;
        bool again = true; /* no offsets suit the first visit's scores: straight to the maxima */
        float mass[2] = {0, 0}, top[2] = {0, 0};
#pragma unroll 1
        for (;;) {
            if (!keys_ready) /* not at the loop's end: 4 % of dense at head dim 64 */
                barrier_wait(BARRIER(k_full, stage.stage), stage.parity);
            issue_scores(stage.stage);
            if (ends)
                end_visit(mass, kept, n - 1);
            uint32_t listed = s.x->visit[n % VISITS_KNOWN].block;
            if (mode == WALK_ESTIMATED)
                expect_masses(listed, mass);
            await_scores(listed);
            verdict v = mode == WALK_EXACT ? visit_exact(mass, listed, again, n)
                                           : visit_by_maxima(mass, top, listed, again, n);
            again = v == WEIGH_AGAIN;
            ends = !again;
            if (__builtin_expect(again, 0))
                continue;
            release_keys(stage.stage);
            stage.next();
            kept = v == KEEP_BLOCK;
            if (kept) {
                if (mode != WALK_DENSE)
                    publish(true, n);
                pack_weights();
                if (__builtin_expect(hides_special(listed, n), 0)) {
                    count_kept(mass, top);
                    add_values_by_key(listed, n);
                } else {
                    issue_values(n);
                    count_kept(mass, top);
                    await_values();
                }
            }
            n++;
            if (--visits == 0)
                break;
        }
        end_visit(mass, kept, n - 1);
    }

    /* ---- Start and end ---- */

    __device__ __forceinline__ void start(const work_item &item, uint32_t i)
    {
        const item_span &span = s.x->span[i % ITEMS_KNOWN];
        limit = item.limit;
        visits = item.visits;
        int64_t left = (varied ? span.len_q : p.len_q) - (item.row() + group * HOPPER_BLOCK_Q);
        rows = (int)(left < 0 ? 0 : left < HOPPER_BLOCK_Q ? left : HOPPER_BLOCK_Q);
        share = 1.f / (float)(rows > 0 ? rows : 1);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            offset[r] = level[r] = -LARGEST; /* below any score; -inf - -inf would be NaN */
            sum[r] = skipped[r] = 0;
            if (mode == WALK_ESTIMATED)
                memory(r).estimate = {0, 0};
            if (varied)
                row_keys(r) = keys_of_row(item, span, r);
        }
        if (varied && thread == 0) /* others read it behind a barrier */
            s.x->keys[group] = span.len_k;
        __syncwarp(); /* a row's threads write and read the same */
#pragma unroll
        for (int i = 0; i < 64; i++)
            score[i] = 0;
#pragma unroll
        for (int i = 0; i < out_registers; i++)
            out[i] = 0;
    }

    /* Where the output has this thread's r-th row. */
    __device__ __forceinline__ int64_t output_row(const work_item &item, uint32_t i, int r)
    {
        int64_t row = item.row() + group * HOPPER_BLOCK_Q + own_row(r);
        if (varied) {
            const item_span &span = s.x->span[i % ITEMS_KNOWN];
            int at = p.order_q ? p.order_q[span.order + (int)row] : (int)row;
            return span.first_q + at;
        }
        return p.order_q ? p.order_q[row] : row;
    }

    /* start: of the row in the output */
    __device__ __forceinline__ void store_row(int r, int64_t start, float inverse)
    {
#pragma unroll
        for (int j = 0; j < out_registers / 4; j++) {
            int column = 8 * j + 2 * (thread % 4);
            float x = out[4 * j + 2 * r] * inverse, y = out[4 * j + 2 * r + 1] * inverse;
            if (column >= p.dim_v)
                continue;
            if (p.out_f32)
                *(float2 *)((float *)p.out + start + column) = make_float2(x, y);
            else
                *(uint32_t *)((T *)p.out + start + column) = pack<T>(x, y);
        }
    }

    /* The same by 16 bytes a thread, by all of them: of 32 columns at a time a quad's threads hold
     * pairs, and swap them for eight columns each. */
    __device__ __forceinline__ void store_row_wide(int r, int64_t start, float inverse)
    {
        const int quad = thread % 4;
#pragma unroll
        for (int k = 0; k < out_registers / 16; k++) {
            uint32_t word[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float *pair = &out[16 * k + 4 * j + 2 * r];
                word[j] = pack<T>(pair[0] * inverse, pair[1] * inverse);
            }
            transpose_quad(word, quad);
            int column = 32 * k + 8 * quad;
            if (exists(r) && column < p.dim_v)
                *(uint4 *)((T *)p.out + start + column) = {word[0], word[1], word[2], word[3]};
        }
    }

    __device__ __forceinline__ float recall_of(int r)
    {
        return skipped[r] == 0 ? 1.f : sum[r] / (sum[r] + skipped[r]);
    }

    __device__ __forceinline__ void finish(const work_item &item, uint32_t i)
    {
        const float recall[2] = {recall_of(0), recall_of(1)};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int64_t row = exists(r) ? output_row(item, i, r) : 0;
            int64_t start =
                item.batch * p.out_stride[0] + item.head * p.out_stride[1] + row * p.out_stride[2];
            float inverse = sum[r] == 0 ? 0.f : 1.f / sum[r];
            if (p.out_wide)
                store_row_wide(r, start, inverse);
            if (!exists(r))
                continue;
            if (!p.out_wide)
                store_row(r, start, inverse);
            if (p.lse && thread % 4 == 0)
                p.lse[item.batch * p.lse_stride[0] + item.head * p.lse_stride[1] + row] =
                    sum[r] == 0 ? -INFINITY : offset[r] * ln_2 + logf(sum[r]);
            if (p.recall && thread % 4 == 0)
                p.recall[item.batch * p.recall_stride[0] + item.head * p.recall_stride[1] + row] =
                    recall[r];
        }
        report_block(item, s.x->recall[group][i % ITEMS_KNOWN],
                     (exists(0) ? recall[0] : 0.f) + (exists(1) ? recall[1] : 0.f));
    }

    /* parts: a warp each. */
    __device__ __forceinline__ void report_block(const work_item &item, float *parts, float recall)
    {
        recall = rows_sum(recall);
        if (thread % 32 == 0)
            parts[thread / 32] = recall;
        group_sync(GROUP_BARRIER + group, 128);
        if (thread != 0 || !p.block_recall)
            return;
        int q_block = item.block + group;
        if (q_block < p.blocks_q)
            p.block_recall[item.head_index(p) * p.blocks_q + q_block] =
                (parts[0] + parts[1]) + (parts[2] + parts[3]);
    }

    /* A warpgroup that is ahead would stay so, and wait for tiles whose places the last one holds,
     * 2 to 5 % of the time of dense at head dim 128. Short walks lose more by waiting here. */
    __device__ __forceinline__ void start_together()
    {
        const int long_walk = 64;
        if (mode == WALK_DENSE && visits >= long_walk)
            group_sync(CONSUMERS_BARRIER, 128 * groups);
    }

    __device__ __forceinline__ void run()
    {
        uint32_t n = 0; /* visits so far */
        factor = p.scale * 1.44269504088896340736f;
#pragma unroll 1
        for (uint32_t i = 0;; i++) {
            const work_item item = take_item(s, i);
            if (item.block < 0)
                break;
            start(item, i);
            barrier_wait(BARRIER(q_full, group), i & 1);
            if (varied && rows < HOPPER_BLOCK_Q)
                clear_rows_beyond();
            start_together();
            const bool walks = visits > 0;
            if (walks)
                walk(n);
            finish(s.x->item[i % ITEMS_KNOWN], i); /* read again: not worth registers till now */
            if (!walks && thread == 0)             /* by now all have seen that q rows were there */
                barrier_arrive(BARRIER(q_empty, group));
            leave_item(s, i);
        }
    }
};

#endif
