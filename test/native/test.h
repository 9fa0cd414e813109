// The native tests' harness: a registry, a runner and a handful of expectations.
//
// A test is a sentence about behaviour. A failed expectation is recorded and the test goes on; an exception that
// escapes fails it. A test that cannot run here says so with SKIP and counts as skipped. main() lives in main.cc:
// prints each failure, each skipped test, and "N passed, N failed, N skipped", and returns 1 on failure.
#pragma once

#include <cmath>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace heddle::test {

struct TestCase {
  std::string suite;
  std::string claim;
  std::function<void()> body;
};

std::vector<TestCase>& Registry();

// Records a failure of the running test.
void Fail(const char* file, int line, const std::string& message);

// Thrown by SKIP.
struct Skipped {
  std::string reason;
};

struct Registrar {
  Registrar(const char* suite, const char* claim, std::function<void()> body) {
    Registry().push_back({suite, claim, std::move(body)});
  }
};

template <typename T>
std::string Show(const T& value) {
  if constexpr (requires(std::ostream & stream) { stream << value; }) {
    std::ostringstream text;
    text.precision(9);
    text << value;
    return text.str();
  } else {
    return "(value)";
  }
}

}  // namespace heddle::test

#define HEDDLE_TEST_CONCAT_(a, b) a##b
#define HEDDLE_TEST_CONCAT(a, b) HEDDLE_TEST_CONCAT_(a, b)
#define TEST(suite, claim)                                                         \
  static void HEDDLE_TEST_CONCAT(TestBody, __LINE__)();                            \
  static const ::heddle::test::Registrar HEDDLE_TEST_CONCAT(kRegistrar, __LINE__)( \
      #suite, claim, HEDDLE_TEST_CONCAT(TestBody, __LINE__));                      \
  static void HEDDLE_TEST_CONCAT(TestBody, __LINE__)()

// Leaves the running test, which needs something that is not here.
#define SKIP(reason) \
  throw ::heddle::test::Skipped { reason }

#define EXPECT_TRUE(condition)                                                                \
  do {                                                                                        \
    if (!(condition)) ::heddle::test::Fail(__FILE__, __LINE__, "expected true: " #condition); \
  } while (0)

#define EXPECT_EQ(actual, expected)                                                                                    \
  do {                                                                                                                 \
    const auto actual_value = (actual);                                                                                \
    const auto expected_value = (expected);                                                                            \
    if (!(actual_value == expected_value))                                                                             \
      ::heddle::test::Fail(                                                                                            \
          __FILE__, __LINE__,                                                                                          \
          #actual " is " + ::heddle::test::Show(actual_value) + ", expected " + ::heddle::test::Show(expected_value)); \
  } while (0)

#define EXPECT_NEAR(actual, expected, tolerance)                                                                       \
  do {                                                                                                                 \
    const double actual_value = static_cast<double>(actual);                                                           \
    const double expected_value = static_cast<double>(expected);                                                       \
    if (!(std::abs(actual_value - expected_value) <= (tolerance)))                                                     \
      ::heddle::test::Fail(                                                                                            \
          __FILE__, __LINE__,                                                                                          \
          #actual " is " + ::heddle::test::Show(actual_value) + ", expected " + ::heddle::test::Show(expected_value)); \
  } while (0)

// The expression throws heddle::Error with this code.
#define EXPECT_ERROR(error_code, expression)                                                                   \
  do {                                                                                                         \
    bool threw = false;                                                                                        \
    try {                                                                                                      \
      (void)(expression);                                                                                      \
    } catch (const ::heddle::Error& error) {                                                                   \
      threw = true;                                                                                            \
      if (error.code() != (error_code))                                                                        \
        ::heddle::test::Fail(                                                                                  \
            __FILE__, __LINE__,                                                                                \
            std::string(#expression " threw ") + ::heddle::ErrorCodeName(error.code()) + ": " + error.what()); \
    }                                                                                                          \
    if (!threw) ::heddle::test::Fail(__FILE__, __LINE__, #expression " did not throw");                        \
  } while (0)
