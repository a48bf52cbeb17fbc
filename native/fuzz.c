/* Damages a packed model many times and hands it to the runner, which must refuse it or answer, and
 * never touch memory that is not its own: `make -C native fuzz MODEL=model.packed`. The checksum is
 * mended each time, or nothing behind it would ever be reached. */
#include <stdio.h>

#include "runner.c"

enum { PRODUCTS = 1 << 24, ARENA = 1 << 26 }; /* beyond, a net takes too long to be asked often */

static uint64_t state = 88172645463325252u;

static uint32_t noise(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static uint32_t below(size_t n) { return (uint32_t)(noise() % n); }

static void mend(uint8_t *file, size_t bytes) {
    if (bytes < sizeof(header)) return;
    uint32_t size = (uint32_t)bytes;
    memcpy(file + 16, &size, 4);
    uint32_t sum = crc32(file + 16, bytes - 16);
    memcpy(file + 12, &sum, 4);
}

/* A number that a careless reader might trip over. */
static uint32_t odd_number(uint32_t old) {
    const uint32_t odd[] = {0, 1, 2, 3, 15, 31, 33, 255, 257, 65535, 65536, 1u << 24, 1u << 28,
                            INT32_MAX, 1u << 31, UINT32_MAX, 0x7fc00000u, old + 1, old - 1, old + 4,
                            old * 2, old ^ 1u << below(32)};
    return odd[below(sizeof odd / sizeof *odd)];
}

/* Changes one to three words of the head or the operations, or some byte; or cuts the end off. */
static size_t damage(uint8_t *file, size_t bytes, uint32_t operations) {
    size_t words = (sizeof(header) + operations * sizeof(record)) / 4;
    for (uint32_t i = 0, times = 1 + below(3); i < times; i++) {
        if (!below(8)) {
            file[below(bytes)] ^= (uint8_t)(1u << below(8));
            continue;
        }
        uint32_t word, at = below(words);
        memcpy(&word, file + 4 * (size_t)at, 4);
        word = below(4) ? odd_number(word) : below(bytes);
        memcpy(file + 4 * (size_t)at, &word, 4);
    }
    return below(20) ? bytes : below(bytes);
}

int main(int count, char **arguments) {
    int times = count > 2 ? atoi(arguments[2]) : 20000, refused = 0, answered = 0, large = 0;
    FILE *input = count > 1 ? fopen(arguments[1], "rb") : NULL;
    static uint8_t whole[1 << 22];
    size_t bytes = input ? fread(whole, 1, sizeof whole, input) : 0;
    if (bytes < sizeof(header)) return 2;
    header head;
    memcpy(&head, whole, sizeof head);
    striate_model *sound = striate_model_new(whole, bytes, NULL, NULL);
    striate_facts size = {0};
    if (sound) striate_model_facts(sound, &size);
    striate_model_free(sound);
    if (!sound || size.products > PRODUCTS || size.arena_bytes > ARENA) {
        fprintf(stderr, "%s: expected a sound model of at most %d products and %d bytes of memory\n",
                arguments[1], PRODUCTS, ARENA);
        return 2;
    }
    for (int i = 0; i < times; i++) {
        uint8_t *file = malloc(bytes);
        memcpy(file, whole, bytes);
        size_t left = damage(file, bytes, head.operations);
        file = realloc(file, left ? left : 1); /* so that sanitisers see the end */
        if (below(50)) mend(file, left);
        striate_refusal refusal;
        striate_model *model = striate_model_new(file, left, NULL, &refusal);
        striate_facts facts = {0};
        if (model) striate_model_facts(model, &facts);
        if (!model) {
            refused += refusal.reason != NULL;
        } else if (facts.products > PRODUCTS || facts.arena_bytes > ARENA) {
            large++; /* a whole file of a net that would take long */
        } else {
            size_t pixels = (size_t)facts.height * facts.width * facts.channels;
            uint8_t *image = calloc(pixels, 1);
            float *scores = malloc((size_t)facts.classes * sizeof *scores);
            void *arena = aligned_alloc(64, facts.arena_bytes);
            striate_model_run(model, 1, image, scores, arena);
            answered++;
            free(image);
            free(scores);
            free(arena);
        }
        striate_model_free(model);
        free(file);
    }
    printf("%d files: %d refused, %d answered, %d too large to ask\n", times, refused, answered,
           large);
    return refused + answered + large != times || !refused || !answered;
}
