// The test harness of native/tests: no framework, one executable per test file, run by ctest.
//   KV_TEST("states a rule") { KV_CHECK(a == b); KV_CHECK_MSG(ok, "%s at %d", name, i); }
//   int main(int argc, char** argv) { return kv::test::run(argc, argv); }
// A failed check prints and fails its test, which goes on; a test that checked nothing fails too.
#pragma once

#include <cstdio>
#include <cstring>
#include <vector>

namespace kv::test {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}
inline long checks = 0;
inline long failures = 0;

struct Registration {
  Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

// Records one check; prints at most 20 failures a test so that a broken kernel does not flood the log.
inline bool record(bool ok, const char* file, int line, const char* what) {
  ++checks;
  if (ok) return true;
  if (++failures <= 20) std::printf("  %s:%d: failed: %s\n", file, line, what);
  return false;
}

// Says loudly that a test could not run here; counts as its check.
inline void skip(const char* why) {
  ++checks;
  std::printf("  SKIPPED: %s\n", why);
}

// Runs all tests, or those whose name contains argv[1]. Returns the process's exit status.
inline int run(int argc, char** argv) {
  int failed = 0, ran = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    checks = failures = 0;
    std::printf("%s\n", test.name);
    std::fflush(stdout);
    test.body();
    ++ran;
    const bool ok = failures == 0 && checks > 0;
    if (!ok) ++failed;
    std::printf("  %s (%ld checks, %ld failed)\n", ok ? "ok" : checks == 0 ? "FAILED: checked nothing" : "FAILED", checks,
                failures);
  }
  std::printf("%d passed, %d failed\n", ran - failed, failed);
  return failed == 0 && ran > 0 ? 0 : 1;
}

}  // namespace kv::test

#define KV_JOIN_(a, b) a##b
#define KV_JOIN(a, b) KV_JOIN_(a, b)
#define KV_TEST(name)                                                                               \
  static void KV_JOIN(test_body_, __LINE__)();                                                      \
  static const kv::test::Registration KV_JOIN(registration_, __LINE__)(name, KV_JOIN(test_body_, __LINE__)); \
  static void KV_JOIN(test_body_, __LINE__)()
#define KV_CHECK(condition) kv::test::record((condition), __FILE__, __LINE__, #condition)
#define KV_CHECK_MSG(condition, ...)                                        \
  do {                                                                      \
    if (!kv::test::record((condition), __FILE__, __LINE__, #condition) && kv::test::failures <= 20) { \
      std::printf("    ");                                                  \
      std::printf(__VA_ARGS__);                                             \
      std::printf("\n");                                                    \
    }                                                                       \
  } while (0)
