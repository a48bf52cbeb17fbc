/* A picture of any size -> the net's pixels, bit for bit as `striate.preprocess` does it by Pillow:
 * the same box, the same filters in the same fixed point, across and then down. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

enum { NEAREST, LANCZOS, BILINEAR, BICUBIC };
enum { SHARE_BITS = 22 /* of a weight's fraction */ };

static double sinc(double x) {
    const double pi = 3.14159265358979323846;
    return x == 0 ? 1 : sin(x * pi) / (x * pi);
}

static double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

static double bilinear(double x) { return fabs(x) < 1 ? 1 - fabs(x) : 0; }

/* Keys' cubic with a = -1/2. */
static double bicubic(double x) {
    x = fabs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/* Samples along one axis: in samples, of which from..to become out samples. */
typedef struct {
    int in, out;
    float from, to;
    int lines, channels;
    size_t in_step, in_line, out_step, out_line; /* bytes to the next sample, to the next line */
} axis;

static uint8_t clip(int32_t sum) {
    sum >>= SHARE_BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

/* One output sample of every line, from `n` input samples and their shares. */
static void mix(const axis *a, const uint8_t *from, const int32_t *shares, int n, uint8_t *to) {
    for (int line = 0; line < a->lines; line++, from += a->in_line, to += a->out_line)
        for (int c = 0; c < a->channels; c++) {
            int32_t sum = 1 << (SHARE_BITS - 1);
            for (int i = 0; i < n; i++) sum += from[i * a->in_step + c] * shares[i];
            to[c] = clip(sum);
        }
}

/* The filter's weights around one output sample in fixed point; returns the first input sample. */
static int find_shares(const axis *a, int at, double (*filter)(double), double reach, double *exact,
                       int32_t *shares, int *n) {
    double scale = (double)(a->to - a->from) / a->out, wide = scale < 1 ? 1 : scale;
    double centre = a->from + (at + 0.5) * scale, support = reach * wide, sum = 0;
    int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
    first = first < 0 ? 0 : first;
    *n = (last > a->in ? a->in : last) - first;
    for (int i = 0; i < *n; i++) {
        exact[i] = filter((i + first - centre + 0.5) * (1.0 / wide));
        sum += exact[i];
    }
    for (int i = 0; i < *n; i++) {
        double share = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << SHARE_BITS);
        shares[i] = (int32_t)(share < 0 ? share - 0.5 : share + 0.5);
    }
    return first;
}

static void take_nearest(const axis *a, const uint8_t *from, uint8_t *to) {
    double scale = (double)(a->to - a->from) / a->out, place = a->from + scale * 0.5;
    for (int at = 0; at < a->out; at++, place += scale, to += a->out_step) {
        int nearest = (int)place < a->in ? (int)place : a->in - 1;
        for (int line = 0; line < a->lines; line++)
            memcpy(to + line * a->out_line,
                   from + (size_t)nearest * a->in_step + line * a->in_line, (size_t)a->channels);
    }
}

static int resample(const axis *a, int interpolation, const uint8_t *from, uint8_t *to) {
    if (interpolation == NEAREST) {
        take_nearest(a, from, to);
        return 0;
    }
    double (*filter)(double) = interpolation == LANCZOS    ? lanczos
                               : interpolation == BILINEAR ? bilinear
                                                           : bicubic;
    double reach = interpolation == LANCZOS ? 3 : interpolation == BILINEAR ? 1 : 2;
    double *exact = malloc(((size_t)a->in + 1) * sizeof *exact);
    int32_t *shares = malloc(((size_t)a->in + 1) * sizeof *shares);
    for (int at = 0; exact && shares && at < a->out; at++) {
        int n, first = find_shares(a, at, filter, reach, exact, shares, &n);
        mix(a, from + (size_t)first * a->in_step, shares, n, to + (size_t)at * a->out_step);
    }
    int failed = !exact || !shares;
    free(exact);
    free(shares);
    return failed ? -1 : 0;
}

/* A level of so much opacity, 0 to 255, over that of the background. */
static uint8_t lay_over(uint32_t level, uint32_t opacity, uint32_t background) {
    uint32_t sum = level * opacity + background * (255 - opacity) + 128;
    return (uint8_t)(((sum >> 8) + sum) >> 8); /* sum / 255, rounded */
}

/* The pixels with as many channels as the net has; what is transparent shows the background. */
static void convert(const uint8_t *from, size_t pixels, int channels, uint32_t background,
                    uint8_t *to, int wanted) {
    for (size_t p = 0; p < pixels; p++, from += channels, to += wanted) {
        const uint8_t *rgb = from;
        uint8_t laid[3];
        if (channels == 4 && from[3] < 255) {
            for (int c = 0; c < 3; c++) laid[c] = lay_over(from[c], from[3], background);
            rgb = laid;
        }
        if (channels == 1) memset(to, from[0], (size_t)wanted);
        else if (wanted == 3) memcpy(to, rgb, 3);
        else to[0] = (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 32768) >> 16);
    }
}

typedef struct {
    double left, top, right, bottom;
} box;

/* The part of a picture that fills the net's input. */
static box box_of(const striate_fitting *fitting, const striate_facts *net, int height, int width) {
    double wide = width * fitting->crop, high = height * fitting->crop;
    if (fitting->fit == 0) {
        double x = (double)width / net->width, y = (double)height / net->height;
        double shrink = fitting->crop * (x < y ? x : y);
        wide = net->width * shrink;
        high = net->height * shrink;
    }
    double left = (width - wide) / 2, top = (height - high) / 2;
    box found = {left, top, left + wide, top + high};
    if (found.left < 0) found.left = 0;
    if (found.top < 0) found.top = 0;
    if (found.right > width) found.right = width;
    if (found.bottom > height) found.bottom = height;
    return found;
}

/* Memory for a picture; NULL where it is short, or addresses of 32 bits do not reach so far. */
static uint8_t *pixels_of(int height, int width, int channels) {
    uint64_t bytes = (uint64_t)height * (uint64_t)width * (uint64_t)channels;
    return bytes <= PTRDIFF_MAX ? malloc((size_t)bytes) : NULL;
}

/* A box of the picture as out_height x out_width pixels in rows of `line` bytes. */
static int resize(const striate_fitting *fitting, const uint8_t *from, int height, int width,
                  int channels, box part, uint8_t *to, int out_height, int out_width, size_t line) {
    size_t step = (size_t)channels;
    uint8_t *middle = pixels_of(height, out_width, channels);
    if (!middle) return -1;
    axis across = {width, out_width, (float)part.left, (float)part.right, height, channels,
                   step, width * step, step, out_width * step};
    axis down = {height, out_height, (float)part.top, (float)part.bottom, out_width, channels,
                 out_width * step, step, line, step};
    int failed = resample(&across, fitting->interpolation, from, middle) ||
                 resample(&down, fitting->interpolation, middle, to);
    free(middle);
    return failed ? -1 : 0;
}

static int at_least_1(double size, int most) {
    double rounded = rint(size);
    return rounded < 1 ? 1 : rounded > most ? most : (int)rounded;
}

int32_t striate_picture(const striate_model *model, const uint8_t *pixels, int32_t height,
                        int32_t width, int32_t channels, uint8_t *image) {
    const int32_t most = 1 << 16;
    striate_facts net;
    striate_fitting fitting;
    striate_model_facts(model, &net);
    striate_model_fitting(model, &fitting);
    int named = channels == 1 || channels == 3 || channels == 4;
    if (!named || height < 1 || width < 1 || height > most || width > most) return -1;
    size_t wanted = (size_t)net.channels, line = net.width * wanted;
    uint8_t *all = pixels_of(height, width, net.channels);
    if (!all) return -1;
    convert(pixels, (size_t)height * width, channels, (uint32_t)fitting.background, all, net.channels);
    box part = box_of(&fitting, &net, height, width);
    int out_height = net.height, out_width = net.width;
    uint8_t *to = image;
    if (fitting.fit == 2) {
        double x = (double)net.width / width, y = (double)net.height / height;
        double factor = x < y ? x : y;
        out_height = at_least_1(height * factor, net.height);
        out_width = at_least_1(width * factor, net.width);
        memset(image, fitting.background, net.height * line);
        to += (net.height - out_height) / 2 * line + (net.width - out_width) / 2 * wanted;
    }
    int failed = resize(&fitting, all, height, width, net.channels, part, to, out_height, out_width,
                        line);
    free(all);
    return failed;
}
