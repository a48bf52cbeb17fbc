/* 64 bits at a time: eight filters a block, one pixel after the other. Before including it, define
 * COUNT_BITS(x), the number of bits in a uint64_t. */
#include "common.h"

enum { BLOCK = 8 };

static void pack(const float *values, int64_t pixels, int channels, uint32_t *bits, int stride) {
    pack_plainly(values, pixels, channels, bits, stride);
}

/* [block][words] -> [words / 2][block] of 64 bits */
static void order(const uint32_t *bits, size_t words, int tap, uint8_t *own) {
    (void)tap;
    for (size_t word = 0; word < words; word += 2)
        for (int f = 0; f < BLOCK; f++, own += 8) memcpy(own, bits + f * words + word, 8);
}

static void convolve(const striate_row *row) {
    for (int x = 0; x < row->width; x++) {
        int32_t counts[BLOCK] = {0};
        const uint8_t *taps = row->pixels + (size_t)x * row->pixel_step;
        const uint8_t *weights = row->weights;
        for (int y = 0; y < row->rows; y++, taps += row->row_step)
            for (int i = 0; i < row->words / 2; i++, weights += 8 * BLOCK) {
                uint64_t pixel, weight[BLOCK];
                memcpy(&pixel, taps + 8 * (size_t)i, 8);
                memcpy(weight, weights, sizeof weight);
                for (int f = 0; f < BLOCK; f++) counts[f] += (int32_t)COUNT_BITS(pixel ^ weight[f]);
            }
        finish(row, BLOCK, x, 1, counts);
    }
}
