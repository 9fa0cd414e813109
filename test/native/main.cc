#include <exception>

#include "test.h"

namespace heddle::test {
namespace {

int failures_in_test = 0;

bool RunOne(const TestCase& test) {
  failures_in_test = 0;
  try {
    test.body();
  } catch (const std::exception& error) {
    Fail("(uncaught)", 0, error.what());
  }
  if (failures_in_test > 0) std::cout << "FAILED " << test.suite << ": " << test.claim << std::endl;
  return failures_in_test == 0;
}

int RunAll(const std::string& filter) {
  int passed = 0;
  int failed = 0;
  for (const TestCase& test : Registry()) {
    if ((test.suite + ": " + test.claim).find(filter) == std::string::npos) continue;
    ++(RunOne(test) ? passed : failed);
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed > 0 || passed == 0 ? 1 : 0;
}

}  // namespace

std::vector<TestCase>& Registry() {
  static std::vector<TestCase> registry;
  return registry;
}

void Fail(const char* file, int line, const std::string& message) {
  ++failures_in_test;
  std::cout << "    " << file << ":" << line << ": " << message << "\n";
}

}  // namespace heddle::test

// Runs all tests, or those whose "Suite: claim" contains the first argument.
int main(int argc, char** argv) { return heddle::test::RunAll(argc > 1 ? argv[1] : ""); }
