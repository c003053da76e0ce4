/* The scene of a synthetic video: 64 features for every token. */
#ifndef RFA_TOOLS_WORKLOAD_SCENE_H
#define RFA_TOOLS_WORKLOAD_SCENE_H

#include <stdint.h>

#define SCENE_CHANNELS 64
#define SCENE_OBJECTS 24
#define SCENE_WAVES 32 /* random Fourier features of a channel */

typedef struct scene_object {
    double embedding[SCENE_CHANNELS];
    double position[2], velocity[2]; /* y, x, in frames' heights and widths */
} scene_object;

typedef struct scene {
    uint64_t seed;
    int64_t grid[3];
    scene_object objects[SCENE_OBJECTS];
    /* Cycles per clip on t, h, w, and phase in cycles; channels last for vectors. */
    double frequency[SCENE_WAVES][3][SCENE_CHANNELS];
    double phase[SCENE_WAVES][SCENE_CHANNELS];
} scene;

void scene_init(scene *s, uint64_t seed, const int64_t grid[3]);

/* The features of one token, 0 <= token < T * H * W in raster order. */
void scene_features(const scene *s, int64_t token, double x[SCENE_CHANNELS]);

#endif
