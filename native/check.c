/* Holds every kernel that this machine can run to plain loops, on random layers and stems, and prints
 * how many agreed. For machines without Python (qemu, Node), and for sanitisers: `make -C native check`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stem.h"
#include "striate.h"

static uint64_t state = 88172645463325252u;

static uint32_t noise(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static int among(int from, int to) { return from + (int)(noise() % (uint32_t)(to - from + 1)); }

static float real(void) { return (float)(int32_t)noise() / 2147483648.0f; }

static int words(int channels) { return (channels + 31) / 32; }

static int bit(const uint32_t *bits, int c) { return bits[c / 32] >> c % 32 & 1; }

/* The sum of one output, tap by tap. */
static int plain_dot(const striate_shape *s, const float *image, const uint32_t *filter, int y,
                     int x) {
    int sum = 0;
    for (int ky = 0; ky < s->kernel; ky++)
        for (int kx = 0; kx < s->kernel; kx++, filter += words(s->channels)) {
            int row = y * s->stride - s->pad + ky, column = x * s->stride - s->pad + kx;
            int outside = row < 0 || column < 0 || row >= s->height || column >= s->width;
            if (outside && !s->pad_one) continue;
            size_t pixel = outside ? 0 : ((size_t)row * s->width + column) * s->channels;
            for (int c = 0; c < s->channels; c++)
                sum += (outside || image[pixel + c] >= 0) == bit(filter, c) ? 1 : -1;
        }
    return sum;
}

static striate_shape random_shape(void) {
    striate_shape s;
    do {
        s.kernel = 2 * among(0, 2) + 1;
        s.height = among(1, 9);
        s.width = among(1, 17);
        s.channels = among(0, 3) ? among(1, 140) : among(1, 600);
        s.filters = among(1, 75);
        if (!among(0, 9)) { /* enough work for several threads */
            s.height = among(20, 30);
            s.channels = among(500, 600);
        }
        s.stride = among(1, 3);
        s.pad = among(0, s.kernel - 1);
        s.pad_one = among(0, 1);
    } while (s.height + 2 * s.pad < s.kernel || s.width + 2 * s.pad < s.kernel);
    return s;
}

static void *memory(size_t bytes) {
    void *found = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!found) exit(2);
    return found;
}

/* One random layer by one kernel: 0 where dots, scores and bits are all as they should be. */
static int wrong(const striate_shape *s, const char *kernel, int images, int threads) {
    int out_height = (s->height + 2 * s->pad - s->kernel) / s->stride + 1;
    int out_width = (s->width + 2 * s->pad - s->kernel) / s->stride + 1;
    size_t inputs = (size_t)images * s->height * s->width * s->channels;
    size_t filter_words = (size_t)s->kernel * s->kernel * words(s->channels);
    size_t pixels = (size_t)images * out_height * out_width, outputs = pixels * s->filters;
    float *values = memory(inputs * 4), *alpha = memory(s->filters * 4);
    float *beta = memory(s->filters * 4), *scores = memory(outputs * 4);
    float *gain = memory(s->channels * 4), *shift = memory(s->channels * 4);
    int32_t *dots = memory(outputs * 4), *threshold = memory(s->filters * 4);
    int32_t *flip = memory(s->filters * 4);
    uint32_t *weights = memory(s->filters * filter_words * 4);
    uint32_t *bits = memory(pixels * words(s->filters) * 4);
    uint32_t *packed = memory(inputs / s->channels * words(s->channels) * 4);
    for (size_t i = 0; i < inputs; i++) values[i] = real();
    for (size_t i = 0; i < s->filters * filter_words; i++) {
        int used = s->channels - 32 * (int)(i % words(s->channels));
        weights[i] = used >= 32 ? noise() : noise() & (((uint32_t)1 << used) - 1);
    }
    for (int c = 0; c < s->channels; c++) {
        gain[c] = fabsf(real()) + 0.01f; /* leaves the signs as they are */
        shift[c] = 0;
    }
    for (int f = 0; f < s->filters; f++) {
        alpha[f] = real();
        beta[f] = real();
        threshold[f] = among(-20, 20);
        flip[f] = -among(0, 1);
    }
    striate_layer *layer = striate_layer_new(s, weights, kernel);
    if (!layer) return 1;
    striate_pack(values, (int64_t)(inputs / s->channels), s->channels, packed);
    void *scratch = memory(striate_scratch_bytes(layer));
    striate_run run = {.images = images, .threads = threads, .scratch = scratch};
    int failed = striate_layer_run(layer, &run) != -1; /* nothing to do is an error */
    run.values = values;
    run.dots = dots;
    failed |= striate_layer_run(layer, &run);
    run.dots = NULL;
    run.scores = scores;
    run.gain = gain;
    run.shift = shift;
    run.alpha = alpha;
    run.beta = beta;
    failed |= striate_layer_run(layer, &run);
    run = (striate_run){.images = images, .threads = threads, .scratch = scratch, .bits = packed,
                        .out_bits = bits, .threshold = threshold, .flip = flip};
    failed |= striate_layer_run(layer, &run);
    for (size_t p = 0; p < pixels; p++)
        for (int f = 0; f < s->filters; f++) {
            size_t image = p / ((size_t)out_height * out_width), i = p * s->filters + f;
            int y = (int)(p / out_width) % out_height, x = (int)(p % out_width);
            int dot = plain_dot(s, values + image * s->height * s->width * s->channels,
                                weights + f * filter_words, y, x);
            failed |= dots[i] != dot;
            failed |= fabsf(scores[i] - (alpha[f] * (float)dot + beta[f])) > 1e-3f;
            failed |= bit(bits + p * words(s->filters), f) != ((dot ^ flip[f]) >= threshold[f]);
        }
    void *all[] = {values, gain, shift, alpha, beta, scores, dots,
                   threshold, flip, weights, bits, packed, scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    striate_layer_free(layer);
    return failed;
}

static striate_window random_window(int height, int width, int most) {
    striate_window w;
    do {
        w = (striate_window){among(1, most), among(1, most), among(1, 3), among(1, 3), 0, 0, 0, 0};
        w.top = among(0, w.rows - 1);
        w.bottom = among(0, w.rows - 1);
        w.left = among(0, w.columns - 1);
        w.right = among(0, w.columns - 1);
    } while (height + w.top + w.bottom < w.rows || width + w.left + w.right < w.columns);
    return w;
}

static striate_stem_shape random_stem(void) {
    striate_stem_shape s;
    do {
        s = (striate_stem_shape){.height = among(1, 20), .width = among(1, 50)};
        s.channels = among(0, 1) ? 3 : among(1, 5);
        s.filters = among(1, 40);
        s.relu = among(0, 1);
        s.conv = random_window(s.height, s.width, 9);
        if (!among(0, 9)) { /* enough work for several threads */
            s.height = s.width = among(66, 70);
            s.filters = 64;
            s.conv = (striate_window){7, 7, 1, 1, 3, 3, 3, 3};
        }
        s.pool = (striate_window){1, 1, 1, 1, 0, 0, 0, 0};
        int height = (s.height + s.conv.top + s.conv.bottom - s.conv.rows) / s.conv.row_stride + 1;
        int width =
            (s.width + s.conv.left + s.conv.right - s.conv.columns) / s.conv.column_stride + 1;
        if (among(0, 2)) s.pool = random_window(height, width, 4);
    } while (!striate_stem_takes(&s));
    return s;
}

/* The sum at y, x of the convolution; -INFINITY beside its map. */
static double plain_sum(const striate_stem_shape *s, const uint8_t *image, const float *weights,
                        const float *mean, double sum, int y, int x) {
    const striate_window *c = &s->conv;
    int height = (s->height + c->top + c->bottom - c->rows) / c->row_stride + 1;
    int width = (s->width + c->left + c->right - c->columns) / c->column_stride + 1;
    if (y < 0 || x < 0 || y >= height || x >= width) return -INFINITY;
    for (int ky = 0; ky < c->rows; ky++)
        for (int kx = 0; kx < c->columns; kx++) {
            int row = y * c->row_stride - c->top + ky, column = x * c->column_stride - c->left + kx;
            if (row < 0 || column < 0 || row >= s->height || column >= s->width) continue;
            for (int k = 0; k < s->channels; k++)
                sum += ((double)image[(row * s->width + column) * s->channels + k] - mean[k]) *
                       weights[((ky * c->columns + kx) * s->channels + k) * s->filters];
        }
    return s->relu && sum < 0 ? 0 : sum;
}

static double plain_maximum(const striate_stem_shape *s, const uint8_t *image, const float *weights,
                            const float *mean, double bias, int y, int x) {
    const striate_window *p = &s->pool;
    double most = -INFINITY;
    for (int ky = 0; ky < p->rows; ky++)
        for (int kx = 0; kx < p->columns; kx++) {
            double sum = plain_sum(s, image, weights, mean, bias, y * p->row_stride - p->top + ky,
                                   x * p->column_stride - p->left + kx);
            if (most < sum) most = sum;
        }
    return most;
}

/* One random stem by one kernel: 0 where it is as near as float32 is, and as all kernels have it. */
static int wrong_stem(const striate_stem_shape *s, const char *kernel, int images, int threads) {
    size_t taps = (size_t)s->conv.rows * s->conv.columns * s->channels;
    size_t picture = (size_t)s->height * s->width * s->channels;
    float *weights = memory(taps * s->filters * 4), *mean = memory(s->channels * 4);
    float *bias = memory(s->filters * 4);
    uint8_t *pixels = memory(images * picture);
    for (size_t i = 0; i < taps * s->filters; i++) weights[i] = real();
    for (int f = 0; f < s->filters; f++) bias[f] = 100 * real();
    for (int k = 0; k < s->channels; k++) mean[k] = 128 + 20 * real();
    for (size_t i = 0; i < images * picture; i++) pixels[i] = (uint8_t)noise();
    striate_stem *stem = striate_stem_new(s, weights, mean, bias, kernel);
    striate_stem *plain = striate_stem_new(s, weights, mean, bias, "portable");
    if (!stem || !plain || !striate_stem_fits(stem, s)) return 1;
    int32_t height, width;
    striate_stem_answer(stem, &height, &width);
    size_t answers = (size_t)images * height * width * s->filters;
    float *out = memory(answers * 4), *same = memory(answers * 4);
    void *scratch = memory(striate_stem_scratch_bytes(stem, threads));
    striate_stem_run(stem, images, threads, pixels, out, scratch);
    striate_stem_run(plain, images, 1, pixels, same, scratch);
    int failed = memcmp(out, same, answers * 4) != 0;
    for (size_t i = 0; i < answers; i++) {
        int f = (int)(i % s->filters), x = (int)(i / s->filters % width);
        int y = (int)(i / s->filters / width % height);
        const uint8_t *image = pixels + i / s->filters / width / height * picture;
        double expected = plain_maximum(s, image, weights + f, mean, bias[f], y, x);
        failed |= !(fabs(out[i] - expected) <= 1e-6 * 128 * sqrt((double)taps));
    }
    void *all[] = {weights, mean, bias, pixels, out, same, scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    striate_stem_free(stem);
    striate_stem_free(plain);
    return failed;
}

static int check_stems(const char *kernel, int stems) {
    int agreed = 0;
    for (int i = 0; i < stems; i++) {
        striate_stem_shape shape = random_stem();
        agreed += !wrong_stem(&shape, kernel, among(1, 2), among(1, 3));
    }
    printf("%s: %d of %d stems agree\n", kernel, agreed, stems);
    return agreed != stems;
}

int main(int count, char **arguments) {
    int layers = count > 1 ? atoi(arguments[1]) : 100, failed = 0;
    for (int k = 0; striate_kernel_name(k); k++) {
        const char *kernel = striate_kernel_name(k);
        int agreed = 0;
        for (int i = 0; i < layers; i++) {
            striate_shape shape = random_shape();
            agreed += !wrong(&shape, kernel, among(1, 3), among(1, 3));
        }
        printf("%s: %d of %d layers agree\n", kernel, agreed, layers);
        failed |= agreed != layers;
    }
    striate_shape large = {32, 32, 64, 64, 3, 1, 1, 0};
    int numbers[] = {0, -1, INT32_MAX}; /* of threads, that make no sense */
    for (int i = 0; i < 3; i++) failed |= wrong(&large, NULL, 1, numbers[i]);
    failed |= check_stems("portable", layers);
    if (striate_stem_kernel()) failed |= check_stems(striate_stem_kernel(), layers);
    striate_shape senseless = {.height = 2, .width = 2, .channels = 8, .filters = 8, .kernel = 3};
    return failed || striate_layer_new(&senseless, (uint32_t[256]){0}, NULL) != NULL;
}
