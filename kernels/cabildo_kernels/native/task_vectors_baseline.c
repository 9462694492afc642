/* Task vectors on the baseline path; the loops are in task_vectors.inc.h. */
#define TV_PATH baseline
#include "task_vectors.inc.h"
