/* striate_run: classifies pictures by a packed model, with nothing but C.
 *
 *     striate_run [-n THREADS] [-k LABELS] [-s] model.packed [picture ...]
 *
 * A picture is a binary PPM or PGM of any size, or the net's own pixels as raw bytes; `-` is the
 * standard input. -s prints every score, in order, instead of the first few labels. Without a
 * picture it says what the model is. STRIATE_KERNEL names a kernel. Exit code 1: a file is refused,
 * while the others are answered; 2: not used as above.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runner.h"

enum { MOST_FILE = 1 << 30, MOST_PIXELS = 100000000 };

typedef struct {
    const striate_model *model;
    striate_facts facts;
    int threads, labels, all_scores;
    uint8_t *image;
    float *scores;
    void *arena;
} session;

static int complain(const char *name, const char *reason) {
    fprintf(stderr, "striate_run: %s: %s\n", name, reason);
    return 1;
}

/* The whole content of a file; NULL where it cannot be had. */
static uint8_t *content(const char *name, size_t *bytes) {
    FILE *file = strcmp(name, "-") ? fopen(name, "rb") : stdin;
    size_t room = 1 << 16, n = 0, more = 1;
    uint8_t *found = file ? malloc(room) : NULL;
    while (found && more) {
        if (n == room) {
            uint8_t *larger = room < MOST_FILE ? realloc(found, room *= 2) : NULL;
            if (!larger) free(found);
            found = larger;
        }
        if (found) n += more = fread(found + n, 1, room - n, file);
    }
    int failed = file && ferror(file);
    if (file && file != stdin) fclose(file);
    *bytes = n;
    if (!failed) return found;
    free(found);
    return NULL;
}

/* === Pictures === */

/* The next number of a PPM's head, after spaces and comments; -1 where there is none. */
static long number(const uint8_t *bytes, size_t n, size_t *at) {
    while (*at < n && (bytes[*at] == '#' || strchr(" \t\r\n", bytes[*at]))) {
        if (!bytes[*at]) return -1;
        if (bytes[(*at)++] == '#')
            while (*at < n && bytes[*at] != '\n') ++*at;
    }
    long value = -1;
    for (; *at < n && bytes[*at] >= '0' && bytes[*at] <= '9' && value < MOST_PIXELS; ++*at)
        value = (value < 0 ? 0 : 10 * value) + bytes[*at] - '0';
    return value;
}

/* Fits a PPM or PGM into the session's image; returns what is wrong with it. */
static const char *read_picture(session *s, const uint8_t *bytes, size_t n) {
    size_t at = 2, own = (size_t)s->facts.height * s->facts.width * s->facts.channels;
    int is_picture = n > 2 && bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6');
    if (!is_picture && n != own) return "expected a binary PPM or PGM, or the net's own pixels";
    if (!is_picture) {
        memcpy(s->image, bytes, own);
        return NULL;
    }
    int channels = bytes[1] == '6' ? 3 : 1;
    long width = number(bytes, n, &at), height = number(bytes, n, &at);
    long levels = number(bytes, n, &at);
    if (width < 1 || height < 1 || width > MOST_PIXELS / height || levels != 255)
        return "expected a picture of 8 bits and at most 100 million pixels";
    size_t pixels = (size_t)width * (size_t)height * (size_t)channels;
    if (at + 1 > n || n - at - 1 < pixels) return "the picture is cut off";
    if (striate_picture(s->model, bytes + at + 1, (int32_t)height, (int32_t)width, channels,
                        s->image))
        return "a picture of no such size, or memory is short";
    return NULL;
}

/* === Answers === */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_best(session *s) {
    for (int k = 0; k < s->labels && k < s->facts.classes; k++) {
        int best = 0;
        for (int i = 1; i < s->facts.classes; i++)
            if (s->scores[i] > s->scores[best]) best = i;
        printf("%8.4f  %s\n", s->scores[best], striate_model_label(s->model, best));
        s->scores[best] = -1;
    }
}

static int classify(session *s, const char *name) {
    size_t n;
    uint8_t *bytes = content(name, &n);
    const char *wrong = bytes ? read_picture(s, bytes, n) : "cannot be read";
    free(bytes);
    if (wrong) return complain(name, wrong);
    double start = now();
    striate_model_run(s->model, s->threads, s->image, s->scores, s->arena);
    double milliseconds = 1e3 * (now() - start);
    for (int i = 0; i < s->facts.classes; i++)
        if (s->scores[i] != s->scores[i]) return complain(name, "the net's answer is no number (NaN)");
    for (int i = 0; s->all_scores && i < s->facts.classes; i++) printf("%.9g\n", s->scores[i]);
    if (s->all_scores) return 0;
    printf("%s  (%.2f ms, %s, threads: %d)\n", name, milliseconds, s->facts.kernel, s->threads);
    print_best(s);
    return 0;
}

static void describe(const session *s, const char *name, size_t bytes) {
    const striate_facts *f = &s->facts;
    printf("%s: %.2f MB, pictures %d x %d x %d, %d classes\n", name, 1e-6 * (double)bytes, f->height,
           f->width, f->channels, f->classes);
    printf("%d operations, %.1f million products, %.2f MB of working memory, kernel %s\n",
           f->operations, 1e-6 * (double)f->products, 1e-6 * (double)f->arena_bytes, f->kernel);
}

static int run(session *s, const char *name, int pictures, char **names) {
    size_t bytes;
    uint8_t *file = content(name, &bytes);
    if (!file) return complain(name, "cannot be read");
    striate_refusal refusal;
    striate_model *model = striate_model_new(file, bytes, NULL, &refusal);
    if (!model) {
        char where[32] = "";
        if (refusal.operation >= 0) snprintf(where, sizeof where, "operation %d, ", refusal.operation);
        fprintf(stderr, "striate_run: %s: %s%s\n", name, where, refusal.reason);
        free(file);
        return 1;
    }
    s->model = model;
    striate_model_facts(model, &s->facts);
    s->image = malloc((size_t)s->facts.height * s->facts.width * s->facts.channels);
    s->scores = malloc((size_t)s->facts.classes * sizeof *s->scores);
    s->arena = aligned_alloc(64, s->facts.arena_bytes);
    int failed = !s->image || !s->scores || !s->arena;
    if (failed) complain(name, "memory is short");
    else if (!pictures) describe(s, name, bytes);
    int answered = failed ? 0 : pictures;
    for (int i = 0; i < answered; i++) failed |= classify(s, names[i]);
    free(s->image);
    free(s->scores);
    free(s->arena);
    striate_model_free(model);
    free(file);
    return failed;
}

static const char usage[] =
    "usage: striate_run [-n THREADS] [-k LABELS] [-s] model.packed [picture ...]\n";

static const char help[] =
    "Classifies pictures by a packed model; without a picture, says what the model is.\n\n"
    "  picture      a binary PPM or PGM of any size, or the net's own pixels as raw bytes;\n"
    "               - is the standard input: djpeg photo.jpg | striate_run model.packed -\n"
    "  -n THREADS   that compute [1]\n"
    "  -k LABELS    that are printed, the best first [5]\n"
    "  -s           print every score, in the order of the classes, and nothing else\n"
    "  -h, --help   print this\n\n"
    "STRIATE_KERNEL in the environment names the kernel that computes.\n";

/* A whole number of at least 1; 0 for anything else. */
static int count_of(const char *text) {
    char *end;
    long value = text ? strtol(text, &end, 10) : 0;
    return value < 1 || value > 1 << 30 || *end ? 0 : (int)value;
}

/* Takes the options; returns the place of the first argument that is none, or 0 for a mistake. */
static int take_options(session *s, char **arguments) {
    int i = 1;
    for (; arguments[i] && arguments[i][0] == '-' && arguments[i][1]; i++) {
        if (!strcmp(arguments[i], "-s")) s->all_scores = 1;
        else if (!strcmp(arguments[i], "-n")) s->threads = count_of(arguments[++i]);
        else if (!strcmp(arguments[i], "-k")) s->labels = count_of(arguments[++i]);
        else return 0;
        if (!s->threads || !s->labels) return 0;
    }
    return i;
}

int main(int count, char **arguments) {
    session s = {.threads = 1, .labels = 5};
    if (count > 1 && (!strcmp(arguments[1], "-h") || !strcmp(arguments[1], "--help"))) {
        printf("%s\n%s", usage, help);
        return 0;
    }
    int first = count > 1 ? take_options(&s, arguments) : 0;
    if (!first || first >= count) {
        fputs(usage, stderr);
        return 2;
    }
    int failed = run(&s, arguments[first], count - first - 1, arguments + first + 1);
    int lost = fflush(stdout) || ferror(stdout);
    return lost ? complain("standard output", "cannot be written") : failed;
}
