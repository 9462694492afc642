/* The Gram matrix in NEON. */
#include "path_neon.h"

#include "gram.h"

#if PATH_NEON
#include "gram_vector_neon.h"

#include "gram_template.h"

const gram_path gram_neon = run_gram;
#else
const gram_path gram_neon = NULL;
#endif
