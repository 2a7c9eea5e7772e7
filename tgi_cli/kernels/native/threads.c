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
/* A wait for a thread that the machine doesn't run: longer than this, and than the waiting
 * thread's own share of the work took. After so many within PATIENCE_NS, one thread less for a
 * while. */
enum { STALL_NS = 1000000, MANY_STALLS = 3, PATIENCE_NS = 100000000, PENALTY_NS = 500000000 };

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
    _Atomic uint32_t last_stall; /* the meeting that was counted last, once for all who waited */
} Team;

static Team team;
static int max_threads = 1;
static int64_t limited_until_ns;
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
        if (atomic_exchange(&team.last_stall, before) != before) atomic_fetch_add(&team.stalls, 1);
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

/* The threads to start: one less for a while after some waited for one that the machine didn't run. */
static int choose_size(void) {
    static int64_t patient_until_ns;
    if (max_threads == 1) return 1;
    if (!atomic_load(&team.stalls) && !limited_until_ns) return max_threads;
    const int64_t now = now_ns();
    if (atomic_load(&team.stalls) >= MANY_STALLS) {
        atomic_store(&team.stalls, 0);
        limited_until_ns = now + PENALTY_NS;
        patient_until_ns = 0;
    } else if (atomic_load(&team.stalls) && !patient_until_ns) {
        patient_until_ns = now + PATIENCE_NS;
    } else if (patient_until_ns && now > patient_until_ns) {
        atomic_store(&team.stalls, 0);
        patient_until_ns = 0;
    }
    if (now > limited_until_ns) limited_until_ns = 0;
    return limited_until_ns ? max_threads - 1 : max_threads;
}

void tgi_team_run(void (*body)(void *), void *argument) {
    pthread_mutex_lock(&in_use);
    const int wanted = choose_size();
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
    pthread_mutex_unlock(&in_use);
}

void tgi_set_num_threads(int num_threads) {
    max_threads = num_threads < MAX_THREADS ? num_threads : MAX_THREADS;
}
