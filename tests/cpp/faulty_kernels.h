#pragma once

#include <vector>

namespace fastface {

struct Faulty {
  const char* fault;
  int (*problems)();  // that the watch found in a run
};

const std::vector<Faulty>& faulty_kernels();
int faults_of_faultless();

}  // namespace fastface
