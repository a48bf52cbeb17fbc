/* What a net begins with, from the bytes of a picture: a real convolution, a ReLU, maximum pooling.
 *
 * Weights are integers of 24 bits here, as many as a float32 keeps, in units of each filter's own:
 * three digits of base 256, each from -128 to 127. The sums of bytes and digits are exact integers,
 * which matrix units add up many times faster than floats. What is rounded are the weights, once, and
 * the sum, at its end: it is as near to the truth as a convolution of floats, or nearer, and the same
 * on every machine.
 */
#ifndef STRIATE_STEM_H
#define STRIATE_STEM_H

#include <math.h>
#include <string.h>

#include "striate.h"

/* The compiler knows the matrix unit, and the system gives it to a process that asks. */
#if defined(__x86_64__) && defined(__linux__)
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define STRIATE_AMX
#endif
#endif

typedef struct striate_stem striate_stem;

typedef struct {
    int32_t rows, columns, row_stride, column_stride;
    int32_t top, left, bottom, right; /* padding, which adds nothing to a sum and is no maximum */
} striate_window;

typedef struct {
    int32_t height, width, channels; /* of the picture */
    int32_t filters;
    striate_window conv, pool; /* a pool of one pixel: none */
    int32_t relu;              /* 1: sums below 0 become 0, before the pooling */
} striate_stem_shape;

/* Whether a stem can be made for this shape: its sizes make sense, and sums stay exact. */
STRIATE_PUBLIC int32_t striate_stem_takes(const striate_stem_shape *shape);

/* Prepares what answers weights * (byte - mean) + bias, by filter.
 *
 * weights: [rows][columns][channels][filters]; mean: [channels]; bias: [filters]. kernel: its name, or
 * NULL for the fastest. Returns NULL when the shape is not taken, this machine has no such kernel,
 * weights are not finite, or memory is short. */
striate_stem *striate_stem_new(const striate_stem_shape *shape, const float *weights,
                               const float *mean, const float *bias, const char *kernel);
void striate_stem_free(striate_stem *stem);

/* Whether it was made for this shape. */
int striate_stem_fits(const striate_stem *stem, const striate_stem_shape *shape);
/* The size of what it answers. */
void striate_stem_answer(const striate_stem *stem, int32_t *height, int32_t *width);
size_t striate_stem_scratch_bytes(const striate_stem *stem, int32_t threads);

/* images: uint8 [n][height][width][channels]; out: [n][height'][width'][filters]; scratch: aligned to
 * 64 bytes. */
void striate_stem_run(const striate_stem *stem, int32_t n, int32_t threads, const uint8_t *images,
                      float *out, void *scratch);

/* The kernel that computes this faster than ONNX Runtime computes it in floats, or NULL where this
 * machine has none, or the variable STRIATE_KERNEL names one of narrower vectors. */
STRIATE_PUBLIC const char *striate_stem_kernel(void);

/* === What the kernels share === */

enum {
    STRIATE_TILE = 16,       /* pixels, and filters, of a product of matrices */
    STRIATE_TILE_BYTES = 64, /* taps in it */
    STRIATE_DIGITS = 3,      /* lowest first */
    STRIATE_CHUNK = 32,      /* bytes that are copied at once, and so many beyond the last */
};

/* One row of windows, and the maxima of its sums along it. */
typedef struct {
    const int8_t *pixels;  /* less 128: the first byte under the first window */
    size_t pixel_step, row_step;
    int rows, run;         /* of the window; bytes in one of its rows */
    int windows, filters, tiles;
    int8_t *taps;          /* [windows, up to whole tiles][tiles][TILE_BYTES], to be filled */
    const int8_t *digits;  /* [filters / TILE][tiles][DIGITS][TILE_BYTES / 4][TILE][4] */
    const float *unit;     /* [filters, up to whole tiles] */
    const float *base;     /* [case][filters, up to whole tiles]: bias, and what the mean takes away */
    const uint8_t *cases;  /* which of them for each window */
    size_t case_step;
    float low;
    float *sums;           /* [windows][TILE], to be filled for one block of filters after the other */
    int columns, stride, left, width; /* of the maxima */
    float *out;            /* [width][filters] */
} striate_stem_row;

typedef struct {
    const char *name;
    int (*usable)(void);
    void (*row)(const striate_stem_row *row);
    /* The largest of several rows of floats. */
    void (*largest)(const float *const *rows, int count, size_t n, float *out);
} striate_stem_kernels;

extern const striate_stem_kernels striate_stem_amx;

/* The bytes under each window, one window after the other. What is copied beyond the last of them
 * meets digits of 0. */
static inline void striate_gather(const striate_stem_row *given) {
    const striate_stem_row row = *given; /* which nothing that is stored can change */
    int8_t *to = row.taps, *end = to + (size_t)row.windows * row.tiles * STRIATE_TILE_BYTES;
    const int8_t *pixels = row.pixels;
    for (; to < end; to += row.tiles * STRIATE_TILE_BYTES, pixels += row.pixel_step) {
        const int8_t *from = pixels;
        int8_t *tap = to;
        for (int y = 0; y < row.rows; y++, tap += row.run, from += row.row_step)
            for (int i = 0; i < row.run; i += STRIATE_CHUNK)
                memcpy(tap + i, from + i, STRIATE_CHUNK);
    }
}

/* The sums under maximum x of a row. */
static inline void striate_under(const striate_stem_row *row, int x, int *first, int *end) {
    *first = x * row->stride - row->left;
    *end = *first + row->columns;
    if (*first < 0) *first = 0;
    if (*end > row->windows) *end = row->windows;
}

#endif
