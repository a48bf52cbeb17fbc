/* What every kernel includes, so that each compiles it for its own instruction set: from floats to
 * bits, and from counts to what is wanted of a layer. Integers and floats are the same on all. */
#ifndef STRIATE_COMMON_H
#define STRIATE_COMMON_H

#include <string.h>

#include "kernel.h"

#define STRIATE_INLINE static inline __attribute__((always_inline))

/* The signs of up to 32 floats. */
STRIATE_INLINE uint32_t pack_word(const float *values, int n) {
    uint32_t word = 0;
    for (int i = 0; i < n; i++) word |= (uint32_t)(values[i] >= 0) << i;
    return word;
}

STRIATE_INLINE void pack_plainly(const float *values, int64_t pixels, int channels, uint32_t *bits,
                                 int stride) {
    for (int64_t p = 0; p < pixels; p++, bits += stride, values += channels)
        for (int c = 0; c < channels; c += 32)
            bits[c / 32] = pack_word(values + c, channels - c < 32 ? channels - c : 32);
}

/* gain * value + shift of whole pixels, in two roundings as every float engine does it. */
static void normalise(const float *restrict values, int pixels, int channels,
                      const float *restrict gain, const float *restrict shift,
                      float *restrict out) {
    for (int p = 0; p < pixels; p++, values += channels, out += channels)
        for (int c = 0; c < channels; c++) out[c] = values[c] * gain[c] + shift[c];
}

/* === Products of floats === */

/* Floats in a register, and pixels whose sums the registers hold together. */
#ifndef LANES
#define LANES 4
#define FLOAT_PIXELS 3
#endif

#if defined(__GNUC__)
typedef float lanes __attribute__((vector_size(4 * LANES)));
#else
#undef LANES
#define LANES 1
typedef float lanes;
#endif

/* Every product is rounded before it is added, so that all kernels give the same sums. */
STRIATE_INLINE void multiply_tile(const striate_products *row, const float *panel, int x, int first,
                                  const int pixels) {
    enum { PARTS = STRIATE_PANEL / LANES };
    const float *taps = row->pixels + (size_t)x * row->pixel_step;
    lanes sum[FLOAT_PIXELS][PARTS], weights[PARTS];
    STRIATE_UNROLL
    for (int p = 0; p < pixels; p++)
        STRIATE_UNROLL
        for (int part = 0; part < PARTS; part++) sum[p][part] = (lanes){0};
    for (int y = 0; y < row->rows; y++, taps += row->row_step)
        for (int i = 0; i < row->run; i++, panel += STRIATE_PANEL) {
            STRIATE_UNROLL
            for (int part = 0; part < PARTS; part++)
                memcpy(&weights[part], panel + part * LANES, sizeof(lanes));
            STRIATE_UNROLL
            for (int p = 0; p < pixels; p++)
                STRIATE_UNROLL
                for (int part = 0; part < PARTS; part++)
                    sum[p][part] += taps[(size_t)p * row->pixel_step + i] * weights[part];
        }
    int left = row->filters - first;
    float *out = row->out + (size_t)x * row->out_step + first;
    STRIATE_UNROLL
    for (int p = 0; p < pixels; p++, out += row->out_step) {
        float kept[STRIATE_PANEL];
        STRIATE_UNROLL
        for (int part = 0; part < PARTS; part++)
            memcpy(kept + part * LANES, &sum[p][part], sizeof(lanes));
        memcpy(out, kept, (size_t)(left < STRIATE_PANEL ? left : STRIATE_PANEL) * sizeof *out);
    }
}

static void multiply(const striate_products *row) {
    enum { HALF = FLOAT_PIXELS / 2, QUARTER = FLOAT_PIXELS / 4 };
    const float *panel = row->panels;
    for (int first = 0; first < row->filters; first += STRIATE_PANEL) {
        int x = 0;
        for (; x + FLOAT_PIXELS <= row->width; x += FLOAT_PIXELS)
            multiply_tile(row, panel, x, first, FLOAT_PIXELS);
        for (; HALF > 1 && x + HALF <= row->width; x += HALF)
            multiply_tile(row, panel, x, first, HALF);
        for (; QUARTER > 1 && x + QUARTER <= row->width; x += QUARTER)
            multiply_tile(row, panel, x, first, QUARTER);
        for (; x < row->width; x++) multiply_tile(row, panel, x, first, 1);
        panel += (size_t)row->rows * row->run * STRIATE_PANEL;
    }
}

/* === Sums under windows === */

#if LANES > 4 /* of the kernels that need them */
typedef int32_t whole_lanes __attribute__((vector_size(4 * LANES)));

/* Numbers of `side` rows of pixels, `across` each -> twice their sums under each window of the row. */
static void window_sums(const int32_t *numbers, size_t across, int side, int stride, int width,
                        int32_t *sums) {
    int i = 0, step = LANES;
    for (; stride == 1 && i + LANES <= width; i += step) {
        whole_lanes sum = {0}, more;
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++) {
                memcpy(&more, numbers + y * across + i + x, sizeof more);
                sum += more;
            }
        sum += sum;
        memcpy(sums + i, &sum, sizeof sum);
        int left = width - i - LANES; /* fewer than a register: some are summed again */
        step = left > 0 && left < LANES ? left : LANES;
    }
    for (; i < width; i++) {
        int32_t sum = 0;
        for (int y = 0; y < side; y++)
#pragma GCC unroll 1
            for (int x = 0; x < side; x++) sum += numbers[y * across + (size_t)i * stride + x];
        sums[i] = 2 * sum;
    }
}
#endif

/* === From counts to what is wanted === */

STRIATE_INLINE void finish_dots(int filters, const int32_t *restrict base,
                                const int32_t *restrict count, int32_t *restrict out) {
    for (int f = 0; f < filters; f++) out[f] = base[f] - 2 * count[f];
}

STRIATE_INLINE void finish_scores(int filters, float scale, const float *restrict alpha,
                                  const float *restrict beta, const int32_t *restrict base,
                                  const int32_t *restrict count, float *restrict out) {
    for (int f = 0; f < filters; f++)
        out[f] = alpha[f] * (scale * (float)(base[f] - 2 * count[f])) + beta[f];
}

STRIATE_INLINE void finish_bits(int block, int bytes, const int32_t *restrict threshold,
                                const int32_t *restrict flip, const int32_t *restrict base,
                                const int32_t *restrict count, uint8_t *restrict out) {
    uint8_t bit[STRIATE_BLOCK] = {0};
    for (int f = 0; f < block; f++)
        bit[f] = ((base[f] - 2 * count[f]) ^ flip[f]) >= threshold[f];
    for (int byte = 0; byte < bytes; byte++) {
        uint64_t eight;
        memcpy(&eight, bit + 8 * byte, 8);
        out[byte] = (uint8_t)(eight * 0x0102040810204080u >> 56); /* byte i becomes bit i */
    }
}

/* Writes `pixels` pixels from output column x on; counts are [pixels][block]. `block` is a constant
 * in every kernel, so that the loops over whole blocks have a fixed length. */
STRIATE_INLINE void finish(const striate_row *row, const int block, int x, int pixels,
                           const int32_t *counts) {
    const float *alpha = row->alpha, *beta = row->beta;
    const int32_t *threshold = row->threshold, *flip = row->flip;
    int filters = row->filters, whole = filters == block, bytes = row->bit_bytes;
    for (int p = 0; p < pixels; p++) {
        const int32_t *count = counts + p * block;
        const int32_t *base = row->base + row->cases[x + p] * row->case_step;
        size_t at = (size_t)(x + p) * row->out_step;
        if (row->bits) {
            finish_bits(block, bytes, threshold, flip, base, count, row->bits + at);
        } else if (row->dots && whole) {
            finish_dots(block, base, count, row->dots + at);
        } else if (row->dots) {
            finish_dots(filters, base, count, row->dots + at);
        } else {
            float scale = row->input_scale ? row->input_scale[x + p] : 1.0f;
            if (whole)
                finish_scores(block, scale, alpha, beta, base, count, row->scores + at);
            else
                finish_scores(filters, scale, alpha, beta, base, count, row->scores + at);
        }
    }
}

#endif
