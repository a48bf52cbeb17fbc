/* What the kernels share with the code that drives them. */
#ifndef STRIATE_KERNEL_H
#define STRIATE_KERNEL_H

#include "striate.h"

/* Between the two, functions are compiled for these instructions, whatever the rest of the program
 * is compiled for. */
#define STRIATE_PRAGMA(words) _Pragma(#words)
#if defined(__clang__)
#define STRIATE_BEGIN_TARGET(features) \
    STRIATE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define STRIATE_END_TARGET STRIATE_PRAGMA(clang attribute pop)
#else
#define STRIATE_BEGIN_TARGET(features) \
    STRIATE_PRAGMA(GCC push_options) STRIATE_PRAGMA(GCC target(features))
#define STRIATE_END_TARGET STRIATE_PRAGMA(GCC pop_options)
#endif

/* Before a loop of a constant, small number of turns: as many statements, so that what it indexes can
 * be in registers. */
#if defined(__clang__)
#define STRIATE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define STRIATE_UNROLL _Pragma("GCC unroll 16")
#endif

/* One row of output pixels for one block of filters. Counts are of bits that differ, so that
 * dot = base - 2 * count; what the padding did not contribute is already in `base`.
 *
 * Half the work: some kernels count groups of bits, as the same two bits of two words. The bits that
 * differ in a group are 2 * half - odd of the pixel + odd of the filter, where odd is 1 for an odd
 * number of 1 bits, and half takes fewer operations to find and fewer bits to hold than the count
 * itself. The odd groups of a filter are part of `base`, those of a window the same for all filters:
 * dot = base + 2 * odd - 4 * half. */
typedef struct {
    const uint8_t *pixels;  /* the first pixel's first tap, in the kernel's own form */
    const uint8_t *weights; /* of the block */
    size_t pixel_step;      /* bytes from one output pixel's taps to the next's */
    size_t row_step;        /* bytes from one row of the input to the next */
    int rows;               /* of the kernel */
    int words;              /* in one row of the kernel */
    int tap;                /* and in one of its taps */
    int width;              /* output pixels */

    const int32_t *base;     /* [case][block] */
    const uint8_t *cases;    /* which of them for each pixel */
    size_t case_step;        /* from one case to the next */
    const int32_t *odd;      /* twice the odd groups under the kernel, where there is `expand` */
    int filters;             /* of the block that exist; the others are computed and dropped */
    size_t out_step;         /* elements (for bits: bytes) from one output pixel to the next */
    int32_t *dots;           /* exactly one of these three, at the block's first filter */
    float *scores;
    uint8_t *bits;
    int bit_bytes;           /* of the block to write */
    const float *alpha, *beta;
    const float *input_scale; /* K of each pixel, or NULL */
    const int32_t *threshold, *flip;
} striate_row;

/* One row of output pixels of floats: sums of products for all panels of filters. */
typedef struct {
    const float *pixels; /* the first pixel's first tap */
    const float *panels; /* weights [panel][rows][run][STRIATE_PANEL] */
    size_t pixel_step;   /* floats from one output pixel's taps to the next's */
    size_t row_step;     /* floats from one row of the input to the next */
    int rows;            /* of the kernel */
    int run;             /* floats in one row of the kernel */
    int width;           /* output pixels */
    int filters;
    float *out;      /* at the first filter */
    size_t out_step; /* floats from one output pixel to the next */
} striate_products;

typedef struct {
    const char *name;
    int block;         /* filters computed together; a multiple of 8, at most STRIATE_BLOCK */
    int word_multiple; /* a pixel has so many words, or a multiple */
    int word_bytes;    /* of one word of a pixel in the kernel's own form */
    int weight_bytes;  /* and of one of a filter */
    int32_t most_taps; /* bits in one sum */
    int (*usable)(void);
    /* `pixels` pixels of floats -> bits [pixels][stride words]; words beyond the last are kept */
    void (*pack)(const float *values, int64_t pixels, int channels, uint32_t *bits, int stride);
    /* gain * value + shift of pixels [channels] */
    void (*normalise)(const float *values, int pixels, int channels, const float *gain,
                      const float *shift, float *out);
    /* A row of pixels of bits [pixels][words] -> the kernel's own form, and the number of odd groups
     * in each; NULL where the form is the bits themselves. Each pixel is the first of a window, and
     * `next` pixels after it begins the next window. */
    void (*expand)(const uint32_t *bits, int pixels, int words, int next, uint8_t *own,
                   int32_t *odd);
    /* Odd groups of `side` rows of pixels, `across` each -> twice their sums under each window. */
    void (*window_sums)(const int32_t *odd, size_t across, int side, int stride, int width,
                        int32_t *sums);
    /* weights [block][words] of one block, `tap` words a tap -> the kernel's own order */
    void (*order)(const uint32_t *bits, size_t words, int tap, uint8_t *own);
    void (*row)(const striate_row *row);
    void (*products)(const striate_products *row);
} striate_kernel;

enum { STRIATE_BLOCK = 64, STRIATE_PANEL = 16 };

extern const striate_kernel striate_avx512, striate_avx2, striate_popcnt, striate_portable;
extern const striate_kernel striate_neon, striate_wasm;

static inline int striate_words(int channels) { return (channels + 31) / 32; }

/* The kernel of that name (or of the variable STRIATE_KERNEL, or the fastest) whose sums hold so many
 * bits; NULL where this machine has none. */
const striate_kernel *striate_choose(const char *name, int64_t taps);

/* The rows (or columns) of a window that lie on a map, from the first to before the last. */
typedef struct {
    int from, to;
} striate_range;

/* Gives every window along one axis the number of its range; returns how many there are, at most twice
 * as many as a window is wide, and one. `size`: of the map; `before`: its padding. */
int striate_number_ranges(int windows, int taps, int stride, int before, int size,
                          striate_range *ranges, uint8_t *numbers);

/* Threads that ever work at a time, however many are asked for. */
enum { STRIATE_MOST_THREADS = 64 };

/* Runs task(context, i) for every i below `tasks` on up to `threads` threads, this one included. */
void striate_parallel(int threads, int tasks, void (*task)(void *, int), void *context);

#endif
