/* A whole net from one file, `model.packed`: checked, planned, and then run without allocating.
 *
 *     striate_model *model = striate_model_new(file, bytes, NULL, &refusal);
 *     striate_model_run(model, threads, image, scores, arena);
 *
 * The file is read in place: its memory stays the caller's, unchanged for as long as the model
 * lives, and aligned to 4 bytes. Every count and every offset in it is checked before it is used;
 * a damaged or hostile file is refused and never read beyond its end. A model never changes after it
 * was made: many threads may run it at once, each in an arena of its own.
 *
 * README.md beside this file says what is in the file.
 */
#ifndef STRIATE_RUNNER_H
#define STRIATE_RUNNER_H

#include "striate.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct striate_model striate_model;

typedef struct {
    int32_t operation;  /* of the file, from 0; -1 where it is none of them */
    const char *reason; /* a constant text */
} striate_refusal;

typedef struct {
    int32_t height, width, channels; /* of the picture */
    int32_t classes, operations;
    int64_t products;   /* of one picture: multiplications, and pairs of signs */
    size_t arena_bytes; /* working memory of one call, aligned to 64 bytes */
    const char *kernel; /* that computes */
} striate_facts;

/* How a picture of any size becomes the net's: see striate_picture. */
typedef struct {
    int32_t fit;           /* 0: centred box of the net's shape, 1: stretched, 2: padded */
    int32_t interpolation; /* 0: nearest, 1: Lanczos, 2: bilinear, 3: bicubic */
    int32_t background;    /* grey level around a padded picture */
    double crop;           /* share of the box that is kept */
} striate_fitting;

/* `kernel`: as for striate_layer_new. Returns NULL and says why where the file is refused. */
STRIATE_PUBLIC striate_model *striate_model_new(const void *file, size_t bytes, const char *kernel,
                                                striate_refusal *refusal);
STRIATE_PUBLIC void striate_model_free(striate_model *model);

STRIATE_PUBLIC void striate_model_facts(const striate_model *model, striate_facts *facts);
STRIATE_PUBLIC void striate_model_fitting(const striate_model *model, striate_fitting *fitting);

/* The i-th class, UTF-8; NULL beyond the last. */
STRIATE_PUBLIC const char *striate_model_label(const striate_model *model, int32_t i);

/* Fits a picture of any size, uint8 [height][width][channels], to the net, as `striate.preprocess`
 * does, bit for bit. channels: 1, 3, or 4, of which the last is opacity: what is transparent shows
 * the fitting's background. Returns 0, or -1 where the sizes make no sense or memory is short. */
STRIATE_PUBLIC int32_t striate_picture(const striate_model *model, const uint8_t *pixels,
                                       int32_t height, int32_t width, int32_t channels,
                                       uint8_t *image);

/* image: uint8 [height][width][channels]; scores: float [classes]; threads below 1 count as 1. */
STRIATE_PUBLIC void striate_model_run(const striate_model *model, int32_t threads,
                                      const uint8_t *image, float *scores, void *arena);

#ifdef __cplusplus
}
#endif
#endif
