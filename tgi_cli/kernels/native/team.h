/* The threads of a step: one parallel region, in which they take units of work and meet again.
 *
 * Each thread has a share of units that follow one another, so that what comes next is fetched ahead,
 * and takes it in portions; one that is done helps the others. So a thread that the machine holds up
 * only keeps what it has begun. Who runs a unit doesn't matter to its arithmetic. At a meeting a thread spins
 * for a while, about 20 microseconds on x86, which is what most waits take, and then sleeps, so
 * that a neighbour on its core gets on.
 */
#ifndef TGI_TEAM_H
#define TGI_TEAM_H

#include <stdint.h>

typedef void (*TgiUnits)(const void *argument, int64_t begin, int64_t end);

/* Run `body` on every thread of the team. Within it every thread must make the same calls of those
 * below, in the same order. */
void tgi_team_run(void (*body)(void *), void *argument);

/* Work that can be shared out. */
typedef struct {
    int64_t num_units;
    TgiUnits run;
    const void *argument;
} TgiWork;

/* Share `work` out, the first units in larger portions, and wait for the last. */
void tgi_team_share(TgiWork work);

/* Then share `rest`, of a few cheap units for each row. For few rows the last thread to finish
 * `work` does all of it, which is quicker than to meet once more. */
void tgi_team_share_both(TgiWork work, TgiWork rest);

#endif
