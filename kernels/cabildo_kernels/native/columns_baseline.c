/* The column rules for any CPU of the architecture. */
#include <string.h>

#include "columns.h"
#if defined(__x86_64__)
#include "vector_sse2.h"
#else
#include "vector_portable.h"
#endif

#include "columns_template.h"

const columns_path columns_baseline = run_columns;
