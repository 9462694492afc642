/* Task vectors on the avx2 path; the loops are in task_vectors.inc.h. */
#include "path_avx2.h"
#if PATH_AVX2
#define TV_PATH avx2
#include "task_vectors.inc.h"
#endif
