#include <exception>
#include <map>

#include "test.h"

namespace heddle::test {
namespace {

int failures_in_test = 0;

enum class Outcome { kPassed, kFailed, kSkipped };

Outcome RunOne(const TestCase& test) {
  failures_in_test = 0;
  try {
    test.body();
  } catch (const Skipped& skipped) {
    std::cout << "skipped: " << test.suite << ": " << test.claim << " (" << skipped.reason << ")" << std::endl;
    return Outcome::kSkipped;
  } catch (const std::exception& error) {
    Fail("(uncaught)", 0, error.what());
  }
  if (failures_in_test == 0) return Outcome::kPassed;
  std::cout << "FAILED " << test.suite << ": " << test.claim << std::endl;
  return Outcome::kFailed;
}

int RunAll(const std::string& filter) {
  std::map<Outcome, int> count;
  for (const TestCase& test : Registry()) {
    if ((test.suite + ": " + test.claim).find(filter) == std::string::npos) continue;
    ++count[RunOne(test)];
  }
  std::cout << count[Outcome::kPassed] << " passed, " << count[Outcome::kFailed] << " failed, "
            << count[Outcome::kSkipped] << " skipped" << std::endl;
  return count[Outcome::kFailed] > 0 || count[Outcome::kPassed] == 0 ? 1 : 0;
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
