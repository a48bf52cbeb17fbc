/* 128-bit registers that count the bits of each byte: eight filters a block, one in each 32-bit
 * lane of two registers; four pixels at a time. Before including it, define VECTOR and ZERO(),
 * LOAD(p), SPLAT(p), ADD_COUNTS(bytes, a, b), WIDEN(sums, bytes) and STORE(p, sums). */
#include "common.h"

enum { BLOCK = 8, PIXELS = 4, MOST_WORDS = 31 /* 8 bits a byte each: a byte holds the sum */ };

static void pack(const float *values, int64_t pixels, int channels, uint32_t *bits, int stride) {
    pack_plainly(values, pixels, channels, bits, stride);
}

/* [block][words] -> [words][block] */
static void order(const uint32_t *bits, size_t words, int tap, uint8_t *own) {
    (void)tap;
    uint32_t *out = (uint32_t *)own;
    for (size_t word = 0; word < words; word++)
        for (int f = 0; f < BLOCK; f++) out[word * BLOCK + f] = bits[f * words + word];
}

STRIATE_INLINE void tile(const striate_row *row, int x, const int pixels) {
    const uint8_t *taps = row->pixels + (size_t)x * row->pixel_step;
    const uint32_t *weights = (const uint32_t *)row->weights;
    VECTOR sum[PIXELS][2];
    for (int p = 0; p < pixels; p++) sum[p][0] = sum[p][1] = ZERO();
    for (int y = 0; y < row->rows; y++, taps += row->row_step)
        for (int begin = 0; begin < row->words; begin += MOST_WORDS) {
            int end = begin + MOST_WORDS < row->words ? begin + MOST_WORDS : row->words;
            VECTOR bytes[PIXELS][2];
            for (int p = 0; p < pixels; p++) bytes[p][0] = bytes[p][1] = ZERO();
            for (int word = begin; word < end; word++, weights += BLOCK) {
                VECTOR first = LOAD(weights), second = LOAD(weights + 4);
                for (int p = 0; p < pixels; p++) {
                    const uint8_t *at = taps + (size_t)p * row->pixel_step;
                    VECTOR pixel = SPLAT((const uint32_t *)at + word);
                    bytes[p][0] = ADD_COUNTS(bytes[p][0], first, pixel);
                    bytes[p][1] = ADD_COUNTS(bytes[p][1], second, pixel);
                }
            }
            for (int p = 0; p < pixels; p++)
                for (int half = 0; half < 2; half++)
                    sum[p][half] = WIDEN(sum[p][half], bytes[p][half]);
        }
    int32_t counts[PIXELS * BLOCK];
    for (int p = 0; p < pixels; p++)
        for (int half = 0; half < 2; half++) STORE(counts + p * BLOCK + 4 * half, sum[p][half]);
    finish(row, BLOCK, x, pixels, counts);
}

static void convolve(const striate_row *row) {
    int x = 0;
    for (; x + PIXELS <= row->width; x += PIXELS) tile(row, x, PIXELS);
    for (; x < row->width; x++) tile(row, x, 1);
}
