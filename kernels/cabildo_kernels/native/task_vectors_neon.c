/* Task vectors on the neon path; the loops are in task_vectors.inc.h. */
#include "path_neon.h"
#if PATH_NEON
#define TV_PATH neon
#include "task_vectors.inc.h"
#endif
