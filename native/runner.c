/* A packed model: the file's checks, the plan of its memory, and its operations one by one. */
#include "runner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum {
    VERSION = 1,
    MOST_SIDE = 1 << 16,
    MOST_WINDOW = 1 << 8,
    MOST_CHANNELS = 1 << 24,
    MOST_TAPS = 1 << 28, /* numbers under one window */
    MOST_OPERATIONS = 1 << 10,
    SMALL_WORK = 1 << 22, /* products of floats that one thread does before others are awake */
    PANELS = 4,           /* of signs that are unpacked at once, each by a thread of its own */
};

static const int64_t MOST_BYTES = (int64_t)1 << 30; /* of one value, and of the arena */

/* === The file === */

typedef struct { /* little-endian, as everything in the file */
    char magic[8];
    uint32_t version, checksum; /* CRC-32 of all that follows */
    uint32_t bytes, height, width, channels, classes, operations;
    uint32_t labels, label_bytes; /* where; classes texts, each with a 0 at its end */
    uint32_t fit, interpolation, background, unused;
    double crop;
    uint32_t reserved[14];
} header;

typedef enum {
    PIXELS = 1,  /* (x - shift) * gain of bytes */
    COPY,        /* for what is done after it */
    CONV,        /* weights [panel][rows][columns][channels][16] */
    DEPTHWISE,   /* weights [rows][columns][channels] */
    SIGN_CONV,   /* as CONV, weights +1 and -1: bits [units][rows][columns][words] */
    BINARY_CONV, /* inputs' signs too: gain * (K *) dot + shift, or bits by thresholds */
    MAX_POOL,
    PAD,         /* with 0 */
    MEAN,        /* of each channel */
    FLATTEN,
    ADD,
    SOFTMAX,     /* of gain[0] * x */
    KINDS
} kind;

enum { BGR = 1, PAD_ONE = 2, SCALE_INPUTS = 4 };

/* One operation. It reads the values `input` and `other`, of which 0 is the picture and i + 1 the
 * answer of operation i. What is at an offset of 0 is absent. Where an answer is of floats, gain and
 * shift are applied to it first, then everything outside low..high is clipped. */
typedef struct {
    uint32_t kind, input, other, units;
    uint32_t rows, columns, row_stride, column_stride; /* of the window */
    uint32_t top, bottom, left, right;                 /* padding */
    uint32_t flags;
    float low, high;
    uint32_t weights;
    uint32_t before_gain, before_shift; /* of signs, which are of gain * x + shift, and PIXELS */
    uint32_t gain, shift;
    uint32_t threshold, flip; /* of the output bits of a BINARY_CONV, as in striate.h */
    uint32_t reserved[2];
} record;

_Static_assert(sizeof(header) == 128 && sizeof(record) == 96, "as in the file");

/* === A model === */

typedef enum { BYTES, FLOATS, BITS } form;

/* What an operation answers, and where in the arena it is. */
typedef struct {
    form form;
    int64_t height, width, channels;
    int64_t bytes, at;
    int last; /* operation that reads it */
} value;

typedef struct {
    record r;
    const void *weights;
    const float *before_gain, *before_shift, *gain, *shift;
    const int32_t *threshold, *flip;
    striate_layer *layer;
    int64_t scratch; /* bytes */
    int64_t products;
} operation;

struct striate_model {
    const uint8_t *file;
    size_t bytes;
    header head;
    const striate_kernel *kernel;
    operation *operations;
    value *values; /* one more than operations */
    int64_t arena, scratch_at;
};

static uint32_t crc32(const uint8_t *bytes, size_t n) {
    uint32_t crc = ~0u, table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[i] = c;
    }
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ bytes[i]) & 255] ^ crc >> 8;
    return ~crc;
}

/* === Checks: each returns NULL, or what is wrong === */

static const char *check_head(striate_model *model) {
    header *head = &model->head;
    if (model->bytes < sizeof *head || (uintptr_t)model->file % 4)
        return "the file is cut off, or its memory not aligned to 4 bytes";
    memcpy(head, model->file, sizeof *head);
    if (memcmp(head->magic, "striate", 8)) return "this is no packed model";
    if (head->version == (uint32_t)VERSION << 24) return "this machine is big-endian";
    if (head->version != VERSION) return "a packed model of another version";
    if (head->bytes != model->bytes) return "the file is cut off, or something follows it";
    if (head->checksum != crc32(model->file + 16, model->bytes - 16))
        return "the checksum is wrong: the file is damaged";
    int sides = head->height >= 1 && head->width >= 1 && head->height <= MOST_SIDE &&
                head->width <= MOST_SIDE;
    if (!sides || (head->channels != 1 && head->channels != 3)) return "no size of a picture";
    if (head->fit > 2 || head->interpolation > 3 || head->background > 255 ||
        !(head->crop > 0 && head->crop <= 1))
        return "no way of fitting a picture";
    if (head->operations < 1 || head->operations > MOST_OPERATIONS ||
        sizeof *head + (size_t)head->operations * sizeof(record) > model->bytes)
        return "not so many operations";
    return NULL;
}

static const char *check_labels(const striate_model *model) {
    const header *head = &model->head;
    if (head->labels > model->bytes || head->label_bytes > model->bytes - head->labels)
        return "the labels lie outside the file";
    uint32_t ends = 0;
    const uint8_t *text = model->file + head->labels;
    for (uint32_t i = 0; i < head->label_bytes; i++) ends += !text[i];
    if (ends != head->classes || (head->label_bytes && text[head->label_bytes - 1]))
        return "not one label for each class";
    return NULL;
}

/* Finds `count` numbers of 4 bytes at an offset; NULL at an offset of 0. */
static int find(const striate_model *model, uint32_t offset, int64_t count, const void *at) {
    const uint8_t *found = NULL;
    if (offset) {
        if (offset % 4 || offset > model->bytes || count < 0) return 0;
        if ((uint64_t)count > (model->bytes - offset) / 4) return 0;
        found = model->file + offset;
    }
    memcpy((void *)at, &found, sizeof found);
    return 1;
}

static int64_t panels_of(int64_t units) { return (units + STRIATE_PANEL - 1) / STRIATE_PANEL; }

/* Numbers of 4 bytes in an operation's weights, for an input of so many channels. */
static int64_t weights_of(const record *r, int64_t channels) {
    int64_t taps = (int64_t)r->rows * r->columns;
    switch (r->kind) {
        case CONV: return panels_of(r->units) * STRIATE_PANEL * taps * channels;
        case DEPTHWISE: return taps * channels;
        case SIGN_CONV:
        case BINARY_CONV: return r->units * taps * striate_words((int)channels);
        default: return 0;
    }
}

static int slides(uint32_t k) {
    return k == CONV || k == DEPTHWISE || k == SIGN_CONV || k == BINARY_CONV || k == MAX_POOL;
}

/* Whether every window of an operation that slides lies on the padded map and meets the map. */
static int window_fits(const record *r, const value *in) {
    return r->rows >= 1 && r->columns >= 1 && r->rows <= MOST_WINDOW &&
           r->columns <= MOST_WINDOW && r->rows * r->columns * in->channels <= MOST_TAPS &&
           r->row_stride >= 1 && r->column_stride >= 1 && r->row_stride <= MOST_SIDE &&
           r->column_stride <= MOST_SIDE && r->top < r->rows && r->bottom < r->rows &&
           r->left < r->columns && r->right < r->columns &&
           in->height + r->top + r->bottom >= r->rows &&
           in->width + r->left + r->right >= r->columns;
}

/* The shape of what an operation answers. */
static const char *shape_answer(const record *r, const value *in, value *out) {
    *out = (value){FLOATS, in->height, in->width, in->channels, 0, 0, 0};
    switch ((kind)r->kind) {
        case CONV:
        case SIGN_CONV:
        case BINARY_CONV:
            if (r->units < 1 || r->units > MOST_CHANNELS) return "no number of filters";
            out->channels = r->units;
            /* fall through */
        case DEPTHWISE:
        case MAX_POOL:
            if (!window_fits(r, in)) return "a window that does not fit its map";
            out->height = (in->height + r->top + r->bottom - r->rows) / r->row_stride + 1;
            out->width = (in->width + r->left + r->right - r->columns) / r->column_stride + 1;
            if (r->kind == BINARY_CONV && r->threshold) out->form = BITS;
            break;
        case PAD:
            if (r->top > MOST_SIDE || r->bottom > MOST_SIDE || r->left > MOST_SIDE ||
                r->right > MOST_SIDE)
                return "too much padding";
            out->height += r->top + r->bottom;
            out->width += r->left + r->right;
            break;
        case FLATTEN:
            out->channels *= in->height * in->width;
            /* fall through */
        case MEAN:
            out->height = out->width = 1;
            break;
        default:
            break;
    }
    if (out->height > MOST_SIDE || out->width > MOST_SIDE || out->channels > MOST_CHANNELS)
        return "an answer that is too large";
    int64_t items = out->form == BITS ? striate_words((int)out->channels) : out->channels;
    out->bytes = (out->height * out->width * items * 4 + 63) / 64 * 64;
    return out->bytes > MOST_BYTES ? "an answer that is too large" : NULL;
}

static const char *check_inputs(const striate_model *model, int i) {
    const record *r = &model->operations[i].r;
    if (r->input > (uint32_t)i || (r->kind == ADD && r->other > (uint32_t)i))
        return "an input that is not there yet";
    const value *in = &model->values[r->input], *other = &model->values[r->other];
    form expected = r->kind == PIXELS ? BYTES : FLOATS;
    if (in->form != expected && !(r->kind == BINARY_CONV && in->form == BITS))
        return "an input of another form";
    if (r->kind == ADD && (other->form != FLOATS || other->height != in->height ||
                           other->width != in->width || other->channels != in->channels))
        return "a sum of maps of two shapes";
    if (r->kind == SOFTMAX && (in->height != 1 || in->width != 1)) return "a softmax of a map";
    return NULL;
}

static const char *find_arrays(striate_model *model, operation *op, const value *in,
                               const value *out) {
    const record *r = &op->r;
    int64_t channels = out->channels, gains = r->kind == SOFTMAX ? 1 : channels;
    if (!find(model, r->weights, weights_of(r, in->channels), &op->weights) ||
        !find(model, r->before_gain, in->channels, &op->before_gain) ||
        !find(model, r->before_shift, in->channels, &op->before_shift) ||
        !find(model, r->gain, gains, &op->gain) || !find(model, r->shift, channels, &op->shift) ||
        !find(model, r->threshold, channels, &op->threshold) ||
        !find(model, r->flip, channels, &op->flip))
        return "weights that lie outside the file";
    int weighty = slides(r->kind) && r->kind != MAX_POOL;
    if (weighty && !op->weights) return "no weights";
    if (!op->before_gain != !op->before_shift) return "half a normalisation before it";
    if (r->kind != SOFTMAX && !op->gain != !op->shift) return "half a normalisation";
    if (r->kind == PIXELS && !op->before_gain) return "no normalisation of pixels";
    if (r->kind == SOFTMAX && !op->gain) return "no temperature";
    return NULL;
}

/* Bits beyond the last channel would count in every sum. */
static int has_stray_bits(const uint32_t *bits, int64_t taps, int64_t channels) {
    int words = striate_words((int)channels), last = (int)(channels % 32);
    if (!last) return 0;
    for (int64_t tap = 0; tap < taps; tap++)
        if (bits[tap * words + words - 1] >> last) return 1;
    return 0;
}

static const char *prepare_binary(striate_model *model, operation *op, const value *in,
                                  const value *out) {
    const record *r = &op->r;
    int square = r->rows == r->columns && r->row_stride == r->column_stride &&
                 r->top == r->bottom && r->left == r->right && r->top == r->left;
    if (!square) return "a binary convolution that is not square";
    if (in->form == BITS && (op->before_gain || r->flags & SCALE_INPUTS))
        return "bits as input where numbers are needed";
    if (out->form == BITS ? !op->flip || op->gain : !op->gain)
        return "neither scales nor thresholds, or both";
    if (r->flags & SCALE_INPUTS && (op->before_gain || out->form == BITS))
        return "a scale of inputs that are normalised or become bits";
    if (has_stray_bits(op->weights, (int64_t)r->units * r->rows * r->columns, in->channels))
        return "bits beyond the last channel";
    striate_shape shape = {
        .height = (int32_t)in->height,
        .width = (int32_t)in->width,
        .channels = (int32_t)in->channels,
        .filters = (int32_t)r->units,
        .kernel = (int32_t)r->rows,
        .stride = (int32_t)r->row_stride,
        .pad = (int32_t)r->top,
        .pad_one = (r->flags & PAD_ONE) != 0,
    };
    op->layer = striate_layer_new(&shape, op->weights, model->kernel->name);
    if (!op->layer) op->layer = striate_layer_new(&shape, op->weights, "portable");
    if (!op->layer) return "a binary convolution that no kernel computes";
    op->scratch = (int64_t)striate_scratch_bytes(op->layer);
    return NULL;
}

static int is_padded(const record *r) { return r->top || r->bottom || r->left || r->right; }

static int64_t padded_bytes(const record *r, const value *in) {
    if (!is_padded(r)) return 0;
    int64_t height = in->height + r->top + r->bottom, width = in->width + r->left + r->right;
    return (height * width * in->channels * 4 + 63) / 64 * 64;
}

static int64_t panel_bytes(const record *r, const value *in) {
    return (int64_t)r->rows * r->columns * in->channels * STRIATE_PANEL * 4;
}

/* Operation i: its inputs, its answer's shape, its weights, its working memory. */
static const char *prepare(striate_model *model, int i) {
    operation *op = &model->operations[i];
    record *r = &op->r;
    memcpy(r, model->file + sizeof(header) + i * sizeof *r, sizeof *r);
    if (r->kind < PIXELS || r->kind >= KINDS) return "an operation of no known kind";
    const char *wrong = check_inputs(model, i);
    if (wrong) return wrong;
    const value *in = &model->values[r->input];
    value *out = &model->values[i + 1];
    wrong = shape_answer(r, in, out);
    if (!wrong) wrong = find_arrays(model, op, in, out);
    if (wrong) return wrong;
    model->values[r->input].last = i;
    if (r->kind == ADD) model->values[r->other].last = i;
    int64_t each = slides(r->kind) ? (int64_t)r->rows * r->columns : 1;
    if (r->kind == CONV || r->kind == SIGN_CONV || r->kind == BINARY_CONV) each *= in->channels;
    op->products = each * out->height * out->width * out->channels;
    if (r->kind == BINARY_CONV) return prepare_binary(model, op, in, out);
    if (r->kind == CONV) op->scratch = padded_bytes(r, in);
    if (r->kind == SIGN_CONV) op->scratch = padded_bytes(r, in) + PANELS * panel_bytes(r, in);
    return op->scratch > MOST_BYTES ? "an operation that needs too much memory" : NULL;
}

/* === The plan === */

/* Gives an answer the lowest place that no value has which is still to be read. */
static void place(striate_model *model, int i) {
    value *mine = &model->values[i + 1];
    for (int moved = 1; moved;) {
        moved = 0;
        for (int v = 1; v <= i; v++) {
            const value *other = &model->values[v];
            int overlaps = mine->at < other->at + other->bytes && other->at < mine->at + mine->bytes;
            if (other->last < i || !overlaps) continue;
            mine->at = other->at + other->bytes;
            moved = 1;
        }
    }
}

/* The arena: the values, each where nobody else is then, and behind them the working memory. */
static const char *plan(striate_model *model) {
    int64_t values = 0, scratch = 0;
    for (int i = 0; i < (int)model->head.operations; i++) {
        const value *mine = &model->values[i + 1];
        if (mine->last <= i && i + 1 < (int)model->head.operations)
            return "an answer that nobody reads";
        place(model, i);
        if (mine->at + mine->bytes > values) values = mine->at + mine->bytes;
        if (model->operations[i].scratch > scratch) scratch = model->operations[i].scratch;
    }
    model->scratch_at = values;
    model->arena = values + scratch;
    return model->arena > MOST_BYTES ? "a net that needs too much memory" : NULL;
}

static const char *check(striate_model *model, const char *kernel, int *at) {
    *at = -1;
    const char *wrong = check_head(model);
    if (!wrong) wrong = check_labels(model);
    if (wrong) return wrong;
    size_t n = model->head.operations;
    model->kernel = striate_choose(kernel, 0);
    if (!model->kernel) return "this machine does not have that kernel";
    model->operations = calloc(n, sizeof *model->operations);
    model->values = calloc(n + 1, sizeof *model->values);
    if (!model->operations || !model->values) return "memory is short";
    const header *head = &model->head;
    model->values[0] = (value){BYTES, head->height, head->width, head->channels, 0, 0, 0};
    for (int i = 0; i < (int)n && !wrong; i++) wrong = prepare(model, *at = i);
    if (wrong) return wrong;
    const value *last = &model->values[n];
    if (last->form != FLOATS || last->height != 1 || last->width != 1 ||
        last->channels != (int64_t)head->classes)
        return "an end that is not one score a class";
    *at = -1;
    return plan(model);
}

striate_model *striate_model_new(const void *file, size_t bytes, const char *kernel,
                                 striate_refusal *refusal) {
    striate_model *model = calloc(1, sizeof *model);
    striate_refusal none = {-1, "memory is short"};
    if (model) {
        model->file = file;
        model->bytes = bytes;
        none.reason = check(model, kernel, &none.operation);
    }
    if (refusal) *refusal = none;
    if (!none.reason) return model;
    striate_model_free(model);
    return NULL;
}

void striate_model_free(striate_model *model) {
    if (!model) return;
    for (int i = 0; model->operations && i < (int)model->head.operations; i++)
        striate_layer_free(model->operations[i].layer);
    free(model->operations);
    free(model->values);
    free(model);
}

void striate_model_facts(const striate_model *model, striate_facts *facts) {
    const header *head = &model->head;
    *facts = (striate_facts){
        .height = (int32_t)head->height,
        .width = (int32_t)head->width,
        .channels = (int32_t)head->channels,
        .classes = (int32_t)head->classes,
        .operations = (int32_t)head->operations,
        .arena_bytes = (size_t)model->arena,
        .kernel = model->kernel->name,
    };
    for (uint32_t i = 0; i < head->operations; i++) facts->products += model->operations[i].products;
}

void striate_model_fitting(const striate_model *model, striate_fitting *fitting) {
    const header *head = &model->head;
    *fitting = (striate_fitting){(int32_t)head->fit, (int32_t)head->interpolation,
                                 (int32_t)head->background, head->crop};
}

const char *striate_model_label(const striate_model *model, int32_t i) {
    if (i < 0 || (uint32_t)i >= model->head.classes) return NULL;
    const char *label = (const char *)model->file + model->head.labels;
    while (i--) label += strlen(label) + 1;
    return label;
}

/* === Running === */

/* One operation on one picture. */
typedef struct {
    const striate_model *model;
    const operation *op;
    const value *in, *out;
    const uint8_t *image; /* where the input is the picture */
    const float *from;    /* where it is floats */
    float *to;
    uint8_t *scratch;
    const float *padded; /* `from` with its padding */
    int threads;
} call;

/* The limits, on so many channels of one row of the answer. */
static void clip_part(const call *c, int64_t y, int64_t first, int64_t n) {
    int64_t channels = c->out->channels;
    float *row = c->to + y * c->out->width * channels + first;
    float low = c->op->r.low, high = c->op->r.high;
    for (int64_t x = 0; x < c->out->width && low > -INFINITY; x++)
        for (int64_t i = x * channels; i < x * channels + n; i++)
            row[i] = row[i] < low ? low : row[i];
    for (int64_t x = 0; x < c->out->width && high < INFINITY; x++)
        for (int64_t i = x * channels; i < x * channels + n; i++)
            row[i] = row[i] > high ? high : row[i];
}

/* gain and shift, then the limits. */
static void finish_part(const call *c, int64_t y, int64_t first, int64_t n) {
    const float *gain = c->op->gain, *shift = c->op->shift;
    int64_t channels = c->out->channels;
    float *row = c->to + y * c->out->width * channels + first;
    for (int64_t x = 0; x < c->out->width && gain; x++, row += channels)
        for (int64_t i = 0; i < n; i++) row[i] = row[i] * gain[first + i] + shift[first + i];
    clip_part(c, y, first, n);
}

static void finish_row(const call *c, int64_t y) { finish_part(c, y, 0, c->out->channels); }

static void copy_row(void *context, int y) {
    const call *c = context;
    int64_t n = c->out->width * c->out->channels;
    memcpy(c->to + y * n, c->from + y * n, (size_t)n * sizeof *c->to);
    finish_row(c, y);
}

static void pixel_row(void *context, int y) {
    const call *c = context;
    int channels = (int)c->in->channels, turned = (c->op->r.flags & BGR) != 0;
    const uint8_t *from = c->image + y * c->in->width * channels;
    float *to = c->to + y * c->in->width * channels;
    for (int64_t x = 0; x < c->in->width; x++, from += channels, to += channels)
        for (int k = 0; k < channels; k++) {
            float level = from[turned ? channels - 1 - k : k];
            to[k] = (level - c->op->before_shift[k]) * c->op->before_gain[k];
        }
    finish_row(c, y);
}

static void add_row(void *context, int y) {
    const call *c = context;
    int64_t n = c->out->width * c->out->channels, first = y * n;
    const float *other = c->padded + first;
    for (int64_t i = 0; i < n; i++) c->to[first + i] = c->from[first + i] + other[i];
    finish_row(c, y);
}

/* One row of a map with its padding around it. */
static void pad_row(const call *c, float *to, int y) {
    const record *r = &c->op->r;
    int64_t n = c->in->width * c->in->channels, left = r->left * c->in->channels;
    int64_t across = left + n + r->right * c->in->channels, row = y - (int64_t)r->top;
    to += y * across;
    if (row < 0 || row >= c->in->height) {
        memset(to, 0, (size_t)across * sizeof *to);
        return;
    }
    memset(to, 0, (size_t)left * sizeof *to);
    memcpy(to + left, c->from + row * n, (size_t)n * sizeof *to);
    memset(to + left + n, 0, (size_t)(across - left - n) * sizeof *to);
}

static void pad_answer_row(void *context, int y) {
    const call *c = context;
    pad_row(c, c->to, y);
    finish_row(c, y);
}

static void pad_scratch_row(void *context, int y) {
    const call *c = context;
    pad_row(c, (float *)c->scratch, y);
}

/* One row of a convolution by the panels of so many filters. */
static void multiply_row(const call *c, int y, const float *panels, int first, int filters) {
    const record *r = &c->op->r;
    size_t channels = (size_t)c->in->channels;
    size_t across = (size_t)(c->in->width + r->left + r->right) * channels;
    striate_products row = {
        .pixels = c->padded + (size_t)y * r->row_stride * across,
        .panels = panels,
        .pixel_step = r->column_stride * channels,
        .row_step = across,
        .rows = (int)r->rows,
        .run = (int)(r->columns * channels),
        .width = (int)c->out->width,
        .filters = filters,
        .out = c->to + y * c->out->width * c->out->channels + first,
        .out_step = (size_t)c->out->channels,
    };
    c->model->kernel->products(&row);
    finish_part(c, y, first, filters);
}

static void conv_row(void *context, int y) {
    const call *c = context;
    multiply_row(c, y, c->op->weights, 0, (int)c->op->r.units);
}

/* Signs of up to 16 units, [units][taps][words], as one panel of floats. */
static void unpack_panel(const uint32_t *bits, size_t taps, int channels, int units, float *panel) {
    size_t words = (size_t)striate_words(channels), unit = taps * words;
    for (size_t tap = 0; tap < taps; tap++)
        for (int c = 0; c < channels; c++, panel += STRIATE_PANEL) {
            uint32_t floats[STRIATE_PANEL] = {0};
            const uint32_t *word = bits + tap * words + c / 32;
            for (int u = 0; u < units; u++) /* 1.0f with the sign of what is bit 0 */
                floats[u] = 0xbf800000u ^ word[u * unit] >> c % 32 << 31;
            memcpy(panel, floats, sizeof floats);
        }
}

/* Every so many-th panel: unpacked, then slid over the whole map. */
static void sign_conv_panels(void *context, int task) {
    const call *c = context;
    const record *r = &c->op->r;
    int channels = (int)c->in->channels, units = (int)r->units;
    size_t taps = (size_t)r->rows * r->columns, unit = taps * (size_t)striate_words(channels);
    int64_t bytes = panel_bytes(r, c->in);
    float *panel = (float *)(c->scratch + padded_bytes(r, c->in) + task * bytes);
    for (int first = task * STRIATE_PANEL; first < units; first += PANELS * STRIATE_PANEL) {
        int filters = units - first < STRIATE_PANEL ? units - first : STRIATE_PANEL;
        const uint32_t *bits = (const uint32_t *)c->op->weights + first * unit;
        unpack_panel(bits, taps, channels, filters, panel);
        for (int y = 0; y < c->out->height; y++) multiply_row(c, y, panel, first, filters);
    }
}

static void run_binary_conv(const call *c) {
    const operation *op = c->op;
    int to_bits = c->out->form == BITS, from_bits = c->in->form == BITS;
    striate_run run = {
        .images = 1,
        .threads = c->threads,
        .values = from_bits ? NULL : c->from,
        .bits = from_bits ? (const uint32_t *)c->from : NULL,
        .gain = op->before_gain,
        .shift = op->before_shift,
        .scores = to_bits ? NULL : c->to,
        .alpha = op->gain,
        .beta = op->shift,
        .scale_inputs = (op->r.flags & SCALE_INPUTS) != 0,
        .out_bits = to_bits ? (uint32_t *)c->to : NULL,
        .threshold = op->threshold,
        .flip = op->flip,
        .scratch = c->scratch,
    };
    striate_layer_run(op->layer, &run);
    for (int64_t y = 0; !to_bits && y < c->out->height; y++) clip_part(c, y, 0, c->out->channels);
}

typedef void tap_rule(float *sum, const float *pixel, const float *weight, int64_t channels);

static void multiply_tap(float *restrict sum, const float *restrict pixel,
                         const float *restrict weight, int64_t channels) {
    for (int64_t i = 0; i < channels; i++) sum[i] += pixel[i] * weight[i];
}

static void largest_tap(float *restrict most, const float *restrict pixel,
                        const float *restrict weight, int64_t channels) {
    (void)weight;
    for (int64_t i = 0; i < channels; i++) most[i] = most[i] < pixel[i] ? pixel[i] : most[i];
}

/* One pixel of an operation on each channel alone: every tap on the map, by the rule. */
static void tap_pixel(const call *c, int y, int x, float start, tap_rule *rule) {
    const record *r = &c->op->r;
    int64_t channels = c->in->channels, width = c->in->width;
    float *to = c->to + (y * c->out->width + x) * channels;
    for (int64_t i = 0; i < channels; i++) to[i] = start;
    for (uint32_t ky = 0; ky < r->rows; ky++) {
        int64_t row = (int64_t)y * r->row_stride + ky - r->top;
        if (row < 0 || row >= c->in->height) continue;
        for (uint32_t kx = 0; kx < r->columns; kx++) {
            int64_t column = (int64_t)x * r->column_stride + kx - r->left;
            if (column < 0 || column >= width) continue;
            const float *weights = (const float *)c->op->weights;
            if (weights) weights += (ky * r->columns + kx) * channels;
            rule(to, c->from + (row * width + column) * channels, weights, channels);
        }
    }
}

static void depthwise_row(void *context, int y) {
    const call *c = context;
    for (int x = 0; x < c->out->width; x++) tap_pixel(c, y, x, 0, multiply_tap);
    finish_row(c, y);
}

static void max_pool_row(void *context, int y) {
    const call *c = context;
    for (int x = 0; x < c->out->width; x++) tap_pixel(c, y, x, -INFINITY, largest_tap);
    finish_row(c, y);
}

static void run_mean(const call *c) {
    int64_t channels = c->in->channels, pixels = c->in->height * c->in->width;
    memset(c->to, 0, (size_t)channels * sizeof *c->to);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < channels; i++) c->to[i] += c->from[p * channels + i];
    for (int64_t i = 0; i < channels; i++) c->to[i] /= (float)pixels;
    finish_row(c, 0);
}

static void run_flatten(const call *c) {
    memcpy(c->to, c->from, (size_t)c->out->channels * sizeof *c->to);
    finish_row(c, 0);
}

static void run_softmax(const call *c) {
    int64_t n = c->in->channels;
    float most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        c->to[i] = c->from[i] * c->op->gain[0];
        if (most < c->to[i]) most = c->to[i];
    }
    for (int64_t i = 0; i < n; i++) sum += c->to[i] = expf(c->to[i] - most);
    for (int64_t i = 0; i < n; i++) c->to[i] /= sum;
}

static void run_operation(call *c) {
    const record *r = &c->op->r;
    int rows = (int)c->out->height, threads = c->threads;
    if ((r->kind == CONV || r->kind == SIGN_CONV) && is_padded(r)) {
        int padded = (int)(c->in->height + r->top + r->bottom);
        striate_parallel(threads, padded, pad_scratch_row, c);
        c->padded = (const float *)c->scratch;
    }
    switch ((kind)r->kind) {
        case PIXELS: striate_parallel(threads, rows, pixel_row, c); break;
        case COPY: striate_parallel(threads, rows, copy_row, c); break;
        case CONV: striate_parallel(threads, rows, conv_row, c); break;
        case DEPTHWISE: striate_parallel(threads, rows, depthwise_row, c); break;
        case SIGN_CONV: striate_parallel(threads, PANELS, sign_conv_panels, c); break;
        case BINARY_CONV: run_binary_conv(c); break;
        case MAX_POOL: striate_parallel(threads, rows, max_pool_row, c); break;
        case PAD: striate_parallel(threads, rows, pad_answer_row, c); break;
        case MEAN: run_mean(c); break;
        case FLATTEN: run_flatten(c); break;
        case ADD: striate_parallel(threads, rows, add_row, c); break;
        case SOFTMAX: run_softmax(c); break;
        case KINDS: break;
    }
}

void striate_model_run(const striate_model *model, int32_t threads, const uint8_t *image,
                       float *scores, void *arena) {
    uint8_t *memory = arena;
    int n = (int)model->head.operations;
    for (int i = 0; i < n; i++) {
        const operation *op = &model->operations[i];
        const value *in = &model->values[op->r.input], *out = &model->values[i + 1];
        call c = {
            .model = model,
            .op = op,
            .in = in,
            .out = out,
            .image = image,
            .from = (const float *)(memory + in->at),
            .to = (float *)(memory + out->at),
            .scratch = memory + model->scratch_at,
            .threads = op->products < SMALL_WORK ? 1 : threads,
        };
        const value *second = op->r.kind == ADD ? &model->values[op->r.other] : in;
        c.padded = (const float *)(memory + second->at);
        run_operation(&c);
    }
    memcpy(scores, memory + model->values[n].at, model->head.classes * sizeof *scores);
}
