/* A pool of threads for work of a few microseconds: each waits spinning for a moment, then asleep. */
#include "kernel.h"

#if defined(__wasm__) || defined(STRIATE_NO_THREADS)

void striate_parallel(int threads, int tasks, void (*task)(void *, int), void *context) {
    (void)threads;
    for (int i = 0; i < tasks; i++) task(context, i);
}

#else

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum {
    MOST_WORKERS = STRIATE_MOST_THREADS - 1,
    SPINS = 20000, /* a fraction of a millisecond, between two layers */
};

enum { IDLE, OFFERED, WORKING };

typedef struct {
    atomic_int state; /* the caller offers a job, and takes it back from a worker that is not awake */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int share; /* of the job that it begins with */
} worker;

static pthread_mutex_t pool = PTHREAD_MUTEX_INITIALIZER; /* held for the length of a job */
static worker workers[MOST_WORKERS];
static int started;

/* Tasks of a job that one thread begins with, on cache lines of its own. */
typedef struct {
    _Alignas(128) atomic_int next;
    int end;
} share;

/* Every thread has the same share of one job after the other, as far as it comes to it, so that what
 * it wrote for the last one is in its caches; then it takes of what the others have left. */
static struct {
    void (*task)(void *, int);
    void *context;
    int shares;
    share of[MOST_WORKERS + 1];
} job;

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(int first) {
    for (int k = 0; k < job.shares; k++) {
        share *from = &job.of[(first + k) % job.shares];
        for (int i; (i = atomic_fetch_add(&from->next, 1)) < from->end;) job.task(job.context, i);
    }
}

static int moves(worker *of, int from, int to) {
    return atomic_compare_exchange_strong(&of->state, &from, to);
}

static void wait_for_job(worker *self) {
    for (int i = 0; i < SPINS; i++, pause_briefly())
        if (atomic_load(&self->state) == OFFERED && moves(self, OFFERED, WORKING)) return;
    pthread_mutex_lock(&self->mutex);
    while (!moves(self, OFFERED, WORKING)) pthread_cond_wait(&self->wake, &self->mutex);
    pthread_mutex_unlock(&self->mutex);
}

static void *work(void *argument) {
    worker *self = argument;
    for (;;) {
        wait_for_job(self);
        take_tasks(self->share);
        atomic_store(&self->state, IDLE);
    }
    return NULL;
}

static void give_job(worker *to) {
    pthread_mutex_lock(&to->mutex);
    atomic_store(&to->state, OFFERED);
    pthread_cond_signal(&to->wake);
    pthread_mutex_unlock(&to->mutex);
}

static void wait_until_idle(worker *other) {
    if (moves(other, OFFERED, IDLE)) return; /* other programs have its processor: done without it */
    for (int i = 0; atomic_load(&other->state) != IDLE; i++, pause_briefly())
        if (i % 1024 == 1023) sched_yield();
}

/* A forked child has none of its parent's threads, and maybe a pool that one of them held. */
static void start_afresh(void) {
    started = 0;
    pthread_mutex_init(&pool, NULL);
}

/* Starts workers until there are `wanted`; returns how many there are. */
static int start_workers(int wanted) {
    static int registered;
    if (!registered) registered = pthread_atfork(NULL, NULL, start_afresh) == 0;
    for (; started < wanted && started < MOST_WORKERS; started++) {
        worker *next = &workers[started];
        pthread_t thread;
        next->share = started + 1;
        atomic_store(&next->state, IDLE);
        pthread_mutex_init(&next->mutex, NULL);
        pthread_cond_init(&next->wake, NULL);
        if (pthread_create(&thread, NULL, work, next)) break;
        pthread_detach(thread);
    }
    return started < wanted ? started : wanted;
}

void striate_parallel(int threads, int tasks, void (*task)(void *, int), void *context) {
    if (threads > tasks) threads = tasks;
    if (threads < 2 || pthread_mutex_trylock(&pool)) { /* another call has the pool: do without */
        for (int i = 0; i < tasks; i++) task(context, i);
        return;
    }
    int helpers = start_workers(threads - 1);
    job.task = task;
    job.context = context;
    job.shares = helpers + 1;
    for (int i = 0; i < job.shares; i++) {
        atomic_store(&job.of[i].next, (int)((int64_t)tasks * i / job.shares));
        job.of[i].end = (int)((int64_t)tasks * (i + 1) / job.shares);
    }
    for (int i = 0; i < helpers; i++) give_job(&workers[i]);
    take_tasks(0);
    for (int i = 0; i < helpers; i++) wait_until_idle(&workers[i]);
    pthread_mutex_unlock(&pool);
}

#endif
