/* The column rules in NEON. */
#include "path_neon.h"

#include <string.h>

#include "columns.h"

#if PATH_NEON
#include "vector_neon.h"

#include "columns_template.h"

const columns_path columns_neon = run_columns;
#else
const columns_path columns_neon = NULL;
#endif
