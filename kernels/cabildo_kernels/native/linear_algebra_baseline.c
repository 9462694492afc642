/* Many small eigenvalue problems on any CPU. */
#include "linear_algebra.h"

#include "linear_algebra_template.h"

const eigen_path eigen_baseline = run_eigen;
