/* The OpenMP threads that every kernel here shares. */
#include <omp.h>

void tgi_set_num_threads(int num_threads) { omp_set_num_threads(num_threads); }
