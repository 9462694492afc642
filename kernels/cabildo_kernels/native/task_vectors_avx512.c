/* Task vectors on the avx512 path; the loops are in task_vectors.inc.h. */
#include "path_avx512.h"
#if PATH_AVX512
#define TV_PATH avx512
#include "task_vectors.inc.h"
#endif
