// SHA-256 against the vectors of FIPS 180-2, and the thread pool: each task exactly once.
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "base/thread_pool.h"
#include "check.h"

namespace pyedge {
namespace {

std::string sha256(const std::string& text, size_t piece) {
  Sha256 sha;
  for (size_t at = 0; at < text.size(); at += piece) {
    const std::string part = text.substr(at, piece);
    sha.update(reinterpret_cast<const uint8_t*>(part.data()), part.size());
  }
  std::string hex;
  for (const uint8_t byte : sha.digest()) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    hex += two;
  }
  return hex;
}

void test_sha256() {
  const std::string million(1000000, 'a');
  for (const size_t piece : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, million.size()}) {
    CHECK(sha256("", piece) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc", piece) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256(million, piece) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

struct Counted {
  std::vector<std::atomic<int>> calls;
  int threads;
};

void count_tasks(void* context, int thread, size_t begin, size_t end) {
  Counted& counted = *static_cast<Counted*>(context);
  CHECK(thread >= 0 && thread < counted.threads);
  for (size_t i = begin; i < end; ++i) counted.calls[i].fetch_add(1);
}

void test_thread_pool() {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const size_t tasks : {size_t{0}, size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{64}}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        Counted counted{std::vector<std::atomic<int>>(tasks), threads};
        pool.run(tasks, count_tasks, &counted);
        for (const std::atomic<int>& calls : counted.calls) CHECK(calls.load() == 1);
      }
    }
  }
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::test_sha256();
  pyedge::test_thread_pool();
  return 0;
}
