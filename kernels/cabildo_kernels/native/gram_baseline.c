/* The Gram matrix in what every CPU of the architecture has. */
#include "gram.h"

#include "gram_vector_baseline.h"

#include "gram_template.h"

const gram_path gram_baseline = run_gram;
