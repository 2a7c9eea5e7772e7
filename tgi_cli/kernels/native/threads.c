/* The team of threads that every kernel here shares: team.h. OpenMP starts and ends it. */
#define _GNU_SOURCE
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "team.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { SPINS = 1500, LINE = 64, FEW_ROWS = 4, MAX_THREADS = 256 };
/* A stall is a wait for a thread that the machine doesn't run: longer than STALL_NS, and than the
 * waiting thread's own share of the work took. Where a WINDOW_NS of computing has MANY_STALLS that
 * take more of it than a thread is worth, there is one thread less for TRIAL_NS; if that was no
 * faster, not again for PATIENCE_NS. */
enum { STALL_NS = 1000000, MANY_STALLS = 3, WINDOW_NS = 100000000, TRIAL_NS = 500000000 };
static const int64_t PATIENCE_NS = 5000000000;

/* How many units of a thread's share are taken, in this meeting and in the one after. */
typedef struct {
    _Alignas(LINE) _Atomic int64_t taken[2];
} Share;

/* Apart from one another, since different threads write them at the same time. */
typedef struct {
    Share shares[MAX_THREADS];
    _Alignas(LINE) _Atomic int arrived;
    _Alignas(LINE) _Atomic uint32_t meetings; /* over; who waits, waits for it to grow */
    _Atomic int sleeping;
    _Alignas(LINE) _Atomic int stalls;
    _Atomic int64_t stalled_ns;
    _Atomic uint32_t last_stall; /* the meeting that was counted last, once for all who waited */
} Team;

static Team team;
static int max_threads = 1;
static pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local unsigned meeting; /* which of a share's two counters this thread is at */
static _Thread_local int team_size = 1; /* of the team that this thread is in */
static _Thread_local int own_share = 0; /* the number of this thread in it */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_until_over(uint32_t before, int64_t share_start_ns) {
    const int64_t start_ns = now_ns();
    atomic_fetch_add(&team.sleeping, 1);
    while (atomic_load(&team.meetings) == before) {
#if defined(__linux__)
        syscall(SYS_futex, &team.meetings, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
#else
        sched_yield();
#endif
    }
    atomic_fetch_sub(&team.sleeping, 1);
    const int64_t waited_ns = now_ns() - start_ns;
    /* A thread that got no unit may wait for long with nothing being wrong. */
    if (share_start_ns && waited_ns > STALL_NS && waited_ns > start_ns - share_start_ns) {
        if (atomic_exchange(&team.last_stall, before) == before) return;
        atomic_fetch_add(&team.stalls, 1);
        atomic_fetch_add(&team.stalled_ns, waited_ns);
    }
}

/* Wait for the others; the last one to come does `rest`, if any, and opens the door. */
static void meet(const TgiWork *rest, int64_t share_start_ns) {
    const uint32_t before = atomic_load(&team.meetings);
    if (atomic_fetch_add(&team.arrived, 1) == team_size - 1) {
        atomic_store(&team.arrived, 0);
        for (int i = 0; i < team_size; i++) atomic_store(&team.shares[i].taken[meeting & 1], 0);
        if (rest) rest->run(rest->argument, 0, rest->num_units);
        atomic_fetch_add(&team.meetings, 1);
#if defined(__linux__)
        if (atomic_load(&team.sleeping))
            syscall(SYS_futex, &team.meetings, FUTEX_WAKE_PRIVATE, team_size, NULL, NULL, 0);
#endif
    } else {
        int spins = 0;
        while (atomic_load_explicit(&team.meetings, memory_order_acquire) == before) {
            if (++spins > SPINS) {
                sleep_until_over(before, share_start_ns);
                break;
            }
            relax();
        }
    }
    meeting++;
}

/* Run what is left of one thread's share, in smaller and smaller portions; return when the first
 * began, or 0 if there was nothing. */
static int64_t take_share(const TgiWork *work, int share) {
    const int64_t first = work->num_units * share / team_size;
    const int64_t size = work->num_units * (share + 1) / team_size - first;
    _Atomic int64_t *taken = &team.shares[share].taken[meeting & 1];
    int64_t start_ns = 0, begin = atomic_load_explicit(taken, memory_order_relaxed);
    while (begin < size) {
        const int64_t portion = (size - begin + 1) / 2;
        if (!atomic_compare_exchange_weak(taken, &begin, begin + portion)) continue;
        if (!start_ns) start_ns = now_ns();
        work->run(work->argument, first + begin, first + begin + portion);
        begin = atomic_load_explicit(taken, memory_order_relaxed);
    }
    return start_ns;
}

/* Return when this thread began, or 0 if nothing was left for it. Its own share comes first: units
 * that follow one another are fetched ahead. Then it helps the others. */
static int64_t take_units(const TgiWork *work) {
    int64_t start_ns = 0;
    for (int i = 0; i < team_size; i++) {
        const int64_t began_ns = take_share(work, (own_share + i) % team_size);
        if (!start_ns) start_ns = began_ns;
    }
    return start_ns;
}

void tgi_team_share(TgiWork work) {
    if (team_size == 1) {
        if (work.num_units > 0) work.run(work.argument, 0, work.num_units);
        return;
    }
    meet(NULL, take_units(&work));
}

void tgi_team_share_both(TgiWork work, TgiWork rest) {
    if (team_size == 1 || rest.num_units > FEW_ROWS) {
        tgi_team_share(work);
        tgi_team_share(rest);
        return;
    }
    meet(&rest, take_units(&work));
}

/* What regions took, with all threads in this window and with one less in the trial after it. */
typedef struct {
    int64_t ns, count;
} Pace;

static struct {
    Pace full, limited;
    int64_t until_ns, not_before_ns; /* of the trial */
} limit;

static int is_slower(Pace a, Pace b) { return a.ns * b.count >= b.ns * a.count; }

/* The threads to start. */
static int choose_size(int64_t now) {
    if (limit.until_ns) {
        if (now < limit.until_ns) return max_threads - 1;
        if (is_slower(limit.limited, limit.full)) limit.not_before_ns = now + PATIENCE_NS;
        limit.until_ns = 0;
        limit.full = limit.limited = (Pace){0, 0};
    }
    if (limit.full.ns > WINDOW_NS) {
        const int64_t stalled_ns = atomic_exchange(&team.stalled_ns, 0);
        const int is_many = atomic_exchange(&team.stalls, 0) >= MANY_STALLS;
        if (is_many && stalled_ns * max_threads > limit.full.ns && now > limit.not_before_ns) {
            limit.until_ns = now + TRIAL_NS;
            return max_threads - 1;
        }
        limit.full = (Pace){0, 0};
    }
    return max_threads;
}

static void count_region(Pace *pace, int64_t start_ns) {
    pace->ns += now_ns() - start_ns;
    pace->count++;
}

void tgi_team_run(void (*body)(void *), void *argument) {
    pthread_mutex_lock(&in_use);
    const int64_t start_ns = now_ns();
    const int wanted = max_threads > 1 ? choose_size(start_ns) : 1;
    if (wanted == 1) {
        team_size = 1;
        body(argument);
    } else {
#pragma omp parallel num_threads(wanted)
        {
            team_size = omp_get_num_threads(); /* the system may have fewer for us */
            own_share = omp_get_thread_num();
            meeting = 0;
            body(argument);
        }
    }
    count_region(limit.until_ns ? &limit.limited : &limit.full, start_ns);
    pthread_mutex_unlock(&in_use);
}

void tgi_set_num_threads(int num_threads) {
    max_threads = num_threads < MAX_THREADS ? num_threads : MAX_THREADS;
}
