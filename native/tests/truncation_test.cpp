// A weight file cut while it is mapped ends requests with KV_FILE_TRUNCATED and leaves the process alive; a SIGBUS that
// is not ours reaches the handler installed before.
#include <csetjmp>
#include <csignal>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/check.h"
#include "tests/test_runner.h"

namespace {

using namespace kv::test;

RowSpec prompt_row() {
  RowSpec row;
  for (int i = 0; i < 40; ++i) row.tokens.push_back(i);
  row.tables = {{2}};
  return row;
}

sigjmp_buf g_jump;

KV_TEST("a truncated weight file fails the running and all later requests, other runners go on") {
  TinyShape shape;
  shape.hidden = 256;
  shape.ffn = 512;
  const TinyModel other_model(shape, 2);
  TestRunner other(other_model, default_options());
  for (const bool to_nothing : {true, false}) {
    for (const std::uint32_t threads : {1u, 2u}) {
      const TinyModel model(shape);
      kv_runner_options options = default_options();
      options.n_threads = threads;
      TestRunner runner(model, options);
      const BatchSpec spec({prompt_row()}, 1);
      KV_CHECK(runner.step(spec).status == KV_OK);
      // One byte less is not visible in any page's presence: only the file's size tells.
      KV_CHECK(truncate(model.path.c_str(), to_nothing ? 0 : static_cast<off_t>(model.bytes.size()) - 1) == 0);
      for (int i = 0; i < 3; ++i) {
        const Outcome out = runner.step(spec);
        KV_CHECK_MSG(out.status == KV_FILE_TRUNCATED, "status %d %s", out.status, out.message.c_str());
        KV_CHECK(out.calls == 1);
      }
      KV_CHECK(other.step(spec).status == KV_OK);
    }
  }
}

KV_TEST("a file cut in the middle of a step fails that step") {
  TinyShape shape;
  shape.hidden = 256;
  shape.ffn = 512;
  shape.n_layers = 6;
  int cut_while_running = 0;
  for (int round = 0; round < 5; ++round) {
    const TinyModel model(shape);
    TestRunner runner(model, default_options());
    RowSpec row;
    for (int i = 0; i < 1500; ++i) row.tokens.push_back(i % 301);
    row.tables = {{0, 1, 2, 3, 4, 5}};
    const BatchSpec spec({row}, 1);
    Outcome first, second;
    KV_CHECK(runner.submit(spec.batch, first) == KV_OK);
    KV_CHECK(runner.submit(spec.batch, second) == KV_OK);
    KV_CHECK(truncate(model.path.c_str(), 4096) == 0);
    runner.wait(second);
    KV_CHECK(first.status == KV_FILE_TRUNCATED || first.status == KV_OK);
    KV_CHECK(second.status == KV_FILE_TRUNCATED);
    cut_while_running += first.status == KV_FILE_TRUNCATED;
  }
  KV_CHECK(cut_while_running > 0);
}

KV_TEST("a file shorter than its tensors, missing or no file is refused with a code") {
  const TinyModel model(TinyShape{});
  KV_CHECK(truncate(model.path.c_str(), static_cast<off_t>(model.bytes.size()) - 1) == 0);
  KV_CHECK(TestRunner(model, default_options()).status == KV_FILE_TRUNCATED);
  TinyModel missing(TinyShape{});
  missing.files[0] = "/nonexistent/model.gguf";
  KV_CHECK(TestRunner(missing, default_options()).status == KV_FILE_UNREADABLE);
  missing.files[0] = "/tmp";
  KV_CHECK(TestRunner(missing, default_options()).status == KV_FILE_UNREADABLE);
}

KV_TEST("a SIGBUS outside our mappings goes to the previous handler, or ends the process when there is none") {
  const pid_t child = fork();
  if (child == 0) {
    struct sigaction action {};
    action.sa_handler = [](int) { siglongjmp(g_jump, 1); };
    sigaction(SIGBUS, &action, nullptr);
    const TinyModel model(TinyShape{});
    const TestRunner runner(model, default_options());  // installs ours on top
    unlink(model.path.c_str());                         // _exit runs no destructor
    char name[] = "/tmp/kvasir-bus-XXXXXX";
    const int file = mkstemp(name);
    unlink(name);
    if (ftruncate(file, 4096) != 0) _exit(3);
    volatile char* page = static_cast<char*>(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0));
    if (ftruncate(file, 0) != 0) _exit(3);
    if (sigsetjmp(g_jump, 1) != 0) _exit(42);
    static_cast<void>(page[0]);
    _exit(4);
  }
  int status = 0;
  waitpid(child, &status, 0);
  KV_CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 42, "status %d", status);
}

}  // namespace

int main(int argc, char** argv) { return kv::test::run(argc, argv); }
