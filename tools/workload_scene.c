/* Moving objects, a smooth field and white noise; docs/specification.md section 7. */
#include "tools/workload_scene.h"

#include <math.h>
#include <string.h>

#include "tools/detmath.h"
#include "tools/workload_random.h"

#define SHARPNESS 120.0 /* of the softmax over objects, per squared distance */
#define MAX_SPEED 0.3
#define MAX_FREQUENCY 3.0
#define FIELD_WEIGHT 0.7
#define WHITE_WEIGHT 0.35

static random_stream stream_of(const scene *s, random_purpose purpose, uint64_t row)
{
    random_stream stream = {s->seed, purpose, 0, row};
    return stream;
}

static double between(double limit, double uniform)
{
    return limit * (2.0 * uniform - 1.0);
}

void scene_init(scene *s, uint64_t seed, const int64_t grid[3])
{
    s->seed = seed;
    memcpy(s->grid, grid, sizeof(s->grid));
    for (uint64_t o = 0; o < SCENE_OBJECTS; o++) {
        scene_object *object = &s->objects[o];
        double uniform[4];
        random_normals(stream_of(s, RANDOM_OBJECT_EMBEDDING, o), SCENE_CHANNELS, object->embedding);
        random_uniforms(stream_of(s, RANDOM_OBJECT_MOTION, o), 4, uniform);
        for (int axis = 0; axis < 2; axis++) {
            object->position[axis] = uniform[axis];
            object->velocity[axis] = between(MAX_SPEED, uniform[2 + axis]);
        }
    }
    for (uint64_t wave = 0; wave < SCENE_WAVES; wave++)
        for (uint64_t c = 0; c < SCENE_CHANNELS; c++) {
            double uniform[4];
            random_uniforms(stream_of(s, RANDOM_FIELD, wave * SCENE_CHANNELS + c), 4, uniform);
            for (int axis = 0; axis < 3; axis++)
                s->frequency[wave][axis][c] = between(MAX_FREQUENCY, uniform[axis]);
            s->phase[wave][c] = uniform[3];
        }
}

static void add_objects(const scene *s, const double at[3], double x[SCENE_CHANNELS])
{
    double weight[SCENE_OBJECTS], largest = -INFINITY, sum = 0.0;
    for (int o = 0; o < SCENE_OBJECTS; o++) {
        const scene_object *object = &s->objects[o];
        double dy = at[1] - (object->position[0] + object->velocity[0] * at[0]);
        double dx = at[2] - (object->position[1] + object->velocity[1] * at[0]);
        weight[o] = -SHARPNESS * (dy * dy + dx * dx);
        largest = weight[o] > largest ? weight[o] : largest;
    }
    for (int o = 0; o < SCENE_OBJECTS; o++) {
        weight[o] = det_exp(weight[o] - largest);
        sum += weight[o];
    }
    for (int o = 0; o < SCENE_OBJECTS; o++) {
        double share = weight[o] / sum;
        for (int c = 0; c < SCENE_CHANNELS; c++)
            x[c] += share * s->objects[o].embedding[c];
    }
}

static void add_field(const scene *s, const double at[3], double x[SCENE_CHANNELS])
{
    double field[SCENE_CHANNELS] = {0};
    for (int wave = 0; wave < SCENE_WAVES; wave++) {
        const double(*f)[SCENE_CHANNELS] = s->frequency[wave];
        for (int c = 0; c < SCENE_CHANNELS; c++) {
            double turns = f[0][c] * at[0] + f[1][c] * at[1] + f[2][c] * at[2] + s->phase[wave][c];
            field[c] += det_cos_turns(turns);
        }
    }
    double scale = FIELD_WEIGHT * sqrt(2.0 / SCENE_WAVES);
    for (int c = 0; c < SCENE_CHANNELS; c++)
        x[c] += scale * field[c];
}

void scene_features(const scene *s, int64_t token, double x[SCENE_CHANNELS])
{
    const int64_t *grid = s->grid;
    int64_t index[3] = {token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]};
    double at[3], white[SCENE_CHANNELS];
    for (int axis = 0; axis < 3; axis++)
        at[axis] = ((double)index[axis] + 0.5) / (double)grid[axis];

    memset(x, 0, SCENE_CHANNELS * sizeof(double));
    add_objects(s, at, x);
    add_field(s, at, x);
    random_normals(stream_of(s, RANDOM_WHITE, (uint64_t)token), SCENE_CHANNELS, white);
    for (int c = 0; c < SCENE_CHANNELS; c++)
        x[c] += WHITE_WEIGHT * white[c];
}
