/* Merging partial results by their lse, in float64: a warp for each row. */
#include "device.cuh"

/* What the parts' rows weigh: exp(lse - max) each. */
struct row_weights {
    double max, sum, recall;
};

__device__ static double part_lse(const cuda_merge &p, int i, int64_t batch, int64_t head,
                                  int64_t row)
{
    const cuda_part &part = p.part[i];
    return (double)part.lse[batch * part.lse_stride[0] + head * part.lse_stride[1] + row];
}

__device__ static row_weights weigh_parts(const cuda_merge &p, int64_t batch, int64_t head,
                                          int64_t row)
{
    row_weights w = {-INFINITY, 0, 1};
    double mass = 0;
    for (int i = 0; i < p.parts; i++) {
        double lse = part_lse(p, i, batch, head, row);
        w.max = lse <= w.max || w.max != w.max ? w.max : lse; /* a NaN goes on */
    }
    if (w.max == -INFINITY)
        return w;
    for (int i = 0; i < p.parts; i++) {
        const cuda_part &part = p.part[i];
        double weight = exp(part_lse(p, i, batch, head, row) - w.max);
        w.sum += weight;
        if (p.recall.data && weight != 0)
            mass +=
                weight /
                (double)
                    part.recall[batch * part.recall_stride[0] + head * part.recall_stride[1] + row];
    }
    if (p.recall.data)
        w.recall = w.sum / mass;
    return w;
}

__device__ static float merge_element(const cuda_merge &p, const row_weights &w, int64_t batch,
                                      int64_t head, int64_t row, int d)
{
    double sum = 0;
    for (int i = 0; i < p.parts && w.sum != 0; i++) {
        const cuda_part &part = p.part[i];
        double weight = exp(part_lse(p, i, batch, head, row) - w.max);
        int64_t at =
            batch * part.out_stride[0] + head * part.out_stride[1] + row * part.out_stride[2] + d;
        if (weight != 0) /* an empty part's output means nothing */
            sum += weight * (double)load_element(part.out, p.dtype, at);
    }
    return w.sum == 0 ? 0 : (float)(sum / w.sum);
}

/* Every number of a row is read before it is written: the output may be the
 * first part. */
extern "C" __global__ void rfa_merge_rows(const __grid_constant__ cuda_merge p)
{
    place_of_head at = split_index(global_warp(), p.heads, p.len);
    int lane = threadIdx.x % WARP;
    if (at.batch >= p.batch)
        return;
    row_weights w = weigh_parts(p, at.batch, at.head, at.n);
    for (int d = lane; d < p.dim; d += WARP) {
        float x = merge_element(p, w, at.batch, at.head, at.n, d);
        store_element(p.out.data, p.out_dtype, element_offset(p.out, at.batch, at.head, at.n) + d,
                      x);
    }
    __syncwarp();
    if (lane != 0)
        return;
    if (p.lse.data)
        *row_at<float>(p.lse, at.batch, at.head, at.n) =
            w.max == -INFINITY ? -INFINITY : (float)(w.max + log(w.sum));
    if (p.recall.data)
        *row_at<float>(p.recall, at.batch, at.head, at.n) = (float)w.recall;
}
